"""A rank's side of a group: a thread that holds the stripes which the scheduler wants.

The engine's own thread only says which step it has launched. What is wanted is a state, not a
queue: a wish that was withdrawn before it was seen is never seen, and a stripe wanted again before
it could go just stays.
"""

import logging
import threading

from _kvcached import client, group_file

MAPPING_MS = 200  # longest wait for one stripe to be mapped
DUE = 0.002  # seconds between looks at whether the step of a release is launched
AGAIN = 0.05  # seconds between attempts to back everything
LONG = 1.0  # seconds without a bell

log = logging.getLogger("kvcached")


class Rank:
    """Rank `number` of the engine of `file`. `report` takes a state for `kvcached stat`."""

    def __init__(self, file, number, report):
        self.file = file
        self.number = number
        self.head = file.head(number)
        self.answer = file.answer[number]
        self.report = report
        self.launched = 0  # all that this step launches, and those before it, is launched
        self.cache = None
        self.back_whole = None
        self.told = {}  # what was last told to the cache: EXPECT, IN_USE
        self.text = 0  # number of the last one reported
        self.spans = []
        self.held = []
        self.done = []  # last word of WANT that was answered, by stripe
        self.due = False  # a release waits for its step
        self.thread = None

    # ---- The engine's thread -----------------------------------------------------------------

    def not_elastic(self, state=group_file.PLAIN):
        """This rank's memory is plain, or BACKED for good."""
        self._state(state)

    def offer(self, cache, blocks, size, least, pinned, back_whole):
        """This rank has a cache of `blocks` blocks, `size` bytes, of which the longest request
        takes `least`. `back_whole(why)` backs all of it instead, or says False: not yet."""
        code, stripes = cache.stripes()
        if code != client.OK or len(stripes) > self.file.capacity:
            raise ValueError("%d stripes, code %d" % (len(stripes), code))
        self.cache, self.pinned, self.back_whole = cache, pinned, back_whole
        ends = self.file.rank_ends[self.number]
        for index, (first, count) in enumerate(stripes):
            ends[index] = first + count
        self.head[group_file.STRIPES] = len(stripes)
        self.head[group_file.BLOCKS], self.head[group_file.BYTES] = blocks, size
        self.head[group_file.LEAST] = least
        self._state(group_file.READY)

    def must_back(self, back_whole):
        """This rank has elastic memory without a cache."""
        self.back_whole = back_whole
        self._state(group_file.UNBACKED)

    def serve(self):
        self.thread = threading.Thread(target=self._run, name="kvcached-group", daemon=True)
        self.thread.start()

    def launch(self, step):
        self.launched = step
        self.head[group_file.LAUNCHED] = step
        if self.cache is not None:
            self.head[group_file.PRESSURE] = self.cache.pressure()

    def verdict(self):
        return self.file.scheduler[group_file.VERDICT]

    # ---- Our thread --------------------------------------------------------------------------

    def _run(self):
        try:
            pause = 0
            while pause is not None:
                bell = self.file.scheduler[group_file.BELL]
                pause = self._look()
                if pause:
                    self.file.wait(-1, bell, pause)
        except Exception as error:
            log.warning("kvcached: %r; rank %d serves no longer", error, self.number,
                        exc_info=error)
            self._state(group_file.BROKEN)

    def _look(self):
        """Does what is wanted. Answers in how many seconds to look again, None: never."""
        verdict = self.verdict()
        if verdict == group_file.UNDECIDED:
            return LONG
        if verdict == group_file.WHOLE:
            return self._back_whole()
        if not self.spans:
            self._begin()
        self.head[group_file.PRESSURE] = self.cache.pressure()  # an idle engine launches no step
        self._tell(group_file.EXPECT, self.cache.expect)
        self._tell(group_file.IN_USE, self.cache.in_use)
        number, text = self.file.text(-1)
        if number > self.text:
            self.text = number
            if text:
                self.report(text)
        want = self.file.want[:len(self.spans)].tolist()
        if want != self.done:
            changed = [s for s, word in enumerate(want) if word != self.done[s]]
            # What goes first makes room for what comes.
            self.due = not all([self._let_go(s, want[s]) for s in changed if not want[s] & 1])
            for stripe in changed:
                # It may have been withdrawn while the ones before it were mapped.
                if want[stripe] & 1 and self.file.want[stripe] == want[stripe]:
                    self._take(stripe, want[stripe])
            if want != self.file.want[:len(self.spans)].tolist():
                return 0
        return DUE if self.due else LONG

    def _begin(self):
        ends = self.file.ends[:self.file.scheduler[group_file.STRIPES]].tolist()
        firsts = [max(first, self.pinned) for first in [0] + ends[:-1]]
        self.spans = [(first, end - first) for first, end in zip(firsts, ends)]
        self.held = [False] * len(ends)
        self.done = [0] * len(ends)

    def _tell(self, word, call):
        value = self.file.scheduler[word]
        if value != self.told.get(word, 0):
            self.told[word] = value
            call(value)

    def _let_go(self, stripe, want):
        """False: not yet."""
        if self.held[stripe]:
            if self.launched < self.file.after[stripe]:
                return False
            code = self.cache.release([self.spans[stripe]])
            if code != client.OK:
                raise ValueError("release answered %d" % code)
            self.held[stripe] = False
        self._answer(stripe, want, 0)
        return True

    def _take(self, stripe, want):
        if not self.held[stripe]:
            code = self.cache.acquire_ranges([self.spans[stripe]], MAPPING_MS)
            if code not in (client.OK, client.SHORT):
                raise ValueError("acquire answered %d" % code)
            self.held[stripe] = code == client.OK
        self._answer(stripe, want, int(self.held[stripe]))
        self.file.ring(self.number)

    def _answer(self, stripe, want, held):
        self.done[stripe] = want
        self.answer[stripe] = want * 2 + held

    def _back_whole(self):
        if self.back_whole is None:
            return None
        if not self.back_whole(self.file.text(-1)[1]):
            return AGAIN
        self._state(group_file.BACKED)
        return None

    def _state(self, state):
        self.head[group_file.STATE] = state
        self.file.ring(self.number)
