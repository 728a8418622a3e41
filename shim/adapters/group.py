"""The scheduler's side of a group: one cache made of those of all ranks.

It has the methods of client.Cache, so a Balloon works over it as over one GPU's cache. A stripe is
wished for by number, the lowest first, because the first are small; it is offered when every rank
holds it. When one refuses, all let it go again. What is released carries the last step that was
given out: a rank lets it go only after it has launched that step.
"""

import bisect
import heapq
import itertools
import threading
import time

from _kvcached import client, group_file

PAUSE = 0.05  # seconds after a refusal in which nothing new is wished for


class Lost(Exception):
    """A rank that answers no more; its engine is about to end."""


class Group:
    """`file`: a new group file. Used by the scheduler's thread, but for `expect`."""

    def __init__(self, file):
        self.file = file
        self.ranks = range(file.ranks)
        self.step = 0  # the last one given out
        self.spans = []  # (first, count) of each stripe
        self.firsts = []
        self.parts = []  # the same without pinned blocks
        self.free = []  # stripes neither wished for nor offered; a heap
        self.wished = []  # in the order of their wishes
        self.offered = set()
        self.sequence = 0
        self.paused_until = 0.0
        self.dead = set()
        self._lock = threading.Lock()

    # ---- Before the first step ---------------------------------------------------------------

    def states(self):
        return [self.file.head(rank)[group_file.STATE] for rank in self.ranks]

    def agree(self, blocks, pinned):
        """Cuts `blocks` into the stripes of all ranks. Answers why that cannot be, "" when done."""
        for rank, state in zip(self.ranks, self.states()):
            if state != group_file.READY:
                return "rank %d is not elastic" % rank
            if self.file.head(rank)[group_file.BLOCKS] != blocks:
                return "rank %d has %d blocks of %d" % (
                    rank, self.file.head(rank)[group_file.BLOCKS], blocks)
        ends = common_ends([list(self.file.rank_ends[rank][:self.file.head(rank)[
            group_file.STRIPES]]) for rank in self.ranks], blocks)
        if not ends:
            return "the ranks cut their caches differently"
        for stripe, end in enumerate(ends):
            self.file.ends[stripe] = end
        self.file.scheduler[group_file.STRIPES] = len(ends)
        self.firsts = [0] + ends[:-1]
        self.spans = [(first, end - first) for first, end in zip(self.firsts, ends)]
        # Only the first block is pinned, in all engines that we know.
        self.parts = [(max(first, pinned), first + count - max(first, pinned))
                      for first, count in self.spans]
        self.free = [stripe for stripe, (_, count) in enumerate(self.parts) if count > 0]
        return ""

    def decide(self, verdict, why=""):
        self.file.write_text(-1, why)
        self.file.scheduler[group_file.VERDICT] = verdict
        self._ring()

    def back_whole(self, rank, wait_ms):
        """As the library's call, of all that a rank has: after decide(WHOLE)."""
        deadline = time.monotonic() + wait_ms / 1000
        while True:
            bell = self.file.head(rank)[group_file.BELL]
            if self.states()[rank] in (group_file.PLAIN, group_file.BACKED):
                return client.OK
            if not self._wait(rank, bell, deadline):
                return client.SHORT

    # ---- As client.Cache ---------------------------------------------------------------------

    def destroy(self):
        return client.OK

    def stripes(self):
        return client.OK, list(self.spans)

    def acquire(self, blocks, wait_ms):
        """Waits for what ranks have not answered yet; what comes later, a later call finds. Raises
        Lost, but not while it has something to give."""
        deadline = time.monotonic() + wait_ms / 1000
        given, got = [], 0
        while True:
            if not given:
                self._check_ranks()
            bells = [self.file.head(rank)[group_file.BELL] for rank in self.ranks]
            for stripe in self._held_by_all(blocks - got):
                given.append(self.parts[stripe])
                got += self.parts[stripe][1]
            if got >= blocks:
                return client.OK, given
            self._wish(blocks - got)
            late = self._late()
            if late is None and self.wished:
                continue  # the last answer came just now
            if late is None or not self._wait(late, bells[late], deadline):
                return client.SHORT, given

    def release(self, ranges):
        stripes = []
        for first, count in ranges:
            stripe = bisect.bisect_right(self.firsts, first) - 1
            if stripe not in self.offered or self.parts[stripe] != (first, count):
                return client.INVALID
            stripes.append(stripe)
        if len(set(stripes)) != len(stripes):
            return client.INVALID
        for stripe in stripes:
            self.offered.remove(stripe)
            self.file.after[stripe] = self.step  # before it is seen that the stripe is not wanted
            self._unwant(stripe)
        self._ring()
        return client.OK

    def expect(self, blocks):
        self.file.scheduler[group_file.EXPECT] = blocks
        self._ring()
        return client.OK

    def in_use(self, blocks):
        self.file.scheduler[group_file.IN_USE] = blocks
        if not blocks and self.wished:
            # What was wished for and not needed: nobody may ask for it again for a long time.
            for stripe in self.wished:
                self._unwant(stripe)
            self.wished = []
            self._ring()
        return client.OK

    def evicted(self, blocks):
        """Not counted: a worker's cache knows nothing of prefixes."""
        return client.OK

    def pressure(self):
        """Of the rank whose neighbours are entitled to most."""
        return max(self.file.head(rank)[group_file.PRESSURE] for rank in self.ranks)

    def wait_pressure(self, wait_ms):
        """Of the rank that hears of it first; looks once a second. By a thread of its own."""
        end = time.monotonic() + wait_ms / 1000
        while not self.pressure():
            left = end - time.monotonic()
            if left <= 0:
                return client.SHORT
            time.sleep(min(left, 1))
        return client.OK

    def report(self, text):
        """What all ranks shall show as their state."""
        self.file.write_text(-1, text)
        self._ring()

    # ---- Wishes ------------------------------------------------------------------------------

    def _wish(self, blocks):
        """Opens wishes until those that are open are for `blocks`."""
        blocks -= sum(self.parts[stripe][1] for stripe in self.wished)
        if blocks <= 0 or not self.free or time.monotonic() < self.paused_until:
            return
        while blocks > 0 and self.free:
            stripe = heapq.heappop(self.free)
            self._want(stripe, 1)
            self.wished.append(stripe)
            blocks -= self.parts[stripe][1]
        self._ring()

    def _held_by_all(self, blocks):
        """Takes stripes for `blocks` that all ranks hold, and closes the wishes that one refused."""
        taken, refused = [], []
        for stripe in self.wished:
            answers = self._answers(stripe)
            if 0 in answers:
                refused.append(stripe)
            elif None not in answers and blocks > 0:
                taken.append(stripe)
                blocks -= self.parts[stripe][1]
        if taken or refused:
            self.wished = [s for s in self.wished if s not in taken and s not in refused]
            self.offered.update(taken)
        if refused:
            # AFTER stays: a rank may hold it still for a step that used it before.
            for stripe in refused:
                self._unwant(stripe)
            self.paused_until = time.monotonic() + PAUSE
            self._ring()
        return taken

    def _answers(self, stripe):
        """Of each rank: 1 held, 0 refused, None: no answer to this wish yet."""
        want = self.file.want[stripe]
        answers = (self.file.answer[rank][stripe] for rank in self.ranks)
        return [answer & 1 if answer >> 1 == want else None for answer in answers]

    def _check_ranks(self):
        for rank, state in enumerate(self.states()):
            if rank in self.dead or state == group_file.BROKEN:
                raise Lost("rank %d %s" % (rank, "died" if rank in self.dead else "failed"))

    def _late(self):
        """A rank that has not answered all wishes, or None."""
        for stripe in self.wished:
            answers = self._answers(stripe)
            if None in answers:
                return answers.index(None)
        return None

    def _wait(self, rank, bell, deadline):
        """For a rank to ring. False: not in time, or never."""
        left = deadline - time.monotonic()
        if left > 0:
            self.file.wait(rank, bell, left)
            if time.monotonic() < deadline:
                return True
            if not self.file.alive(rank):
                self.dead.add(rank)
        return False

    def _want(self, stripe, wanted):
        self.sequence += 1
        self.file.want[stripe] = self.sequence * 2 + wanted

    def _unwant(self, stripe):
        self._want(stripe, 0)
        heapq.heappush(self.free, stripe)

    def _ring(self):
        with self._lock:
            self.file.ring(-1)


def common_ends(ends_of_ranks, blocks):
    """Where stripes of all ranks end. Ranks whose pools differ cut by powers of two all the same,
    so that the largest stripes are common; none ([]) when the common ones would be larger."""
    if not all(ends and ends[-1] == blocks for ends in ends_of_ranks):
        return []
    common = sorted(set.intersection(*map(set, ends_of_ranks)))
    largest = max(map(_largest, ends_of_ranks))
    return common if _largest(common) <= largest else []


def _largest(ends):
    return max(end - first for first, end in zip(itertools.chain((0,), ends), ends))
