"""vLLM's queue of free blocks, ordered by the stripes that back them.

It takes the place of BlockPool.free_block_queue, so that it alone decides which block goes next,
and knows of every block that comes or goes, whoever moves it:

  first   blocks whose contents nobody knows, from the fullest stripe: the emptier ones run dry
  then    blocks that the prefix cache knows, the least recently freed first, as in stock

Only blocks that have memory are in it. What a stripe holds is one of: live (the engine's), loose
(free, unknown) or cached (free, known). A condemned stripe gives no blocks any more and goes when
its last live one is freed: its free blocks are aside.

The cached ones lie in a queue of the engine's own class, `known_queue`, whose links in the blocks
cost less than any container. What was freed or taken from that queue is noted, and entered into the
books of the stripes together, by post(); until then `live`, `known` and the lists of empty stripes do
not tell of it.
"""

import collections
import itertools
import operator

NUMBER = operator.attrgetter("block_id")
# Loose blocks freed before the order of stripes, from the fullest, is made anew.
STALE = 512


class StripedQueue:
    """`blocks`: all blocks of the pool by number. `stripes`: (first, count) of each, in order.
    `known_queue`: an empty queue of the engine's. `before_evicting(count)` is called when `count`
    blocks are taken and some of them are not there, or would be cached ones of which no more than
    `ask_below` are left: it may add stripes."""

    def __init__(self, blocks, stripes, known_queue, before_evicting, ask_below=float("inf")):
        self.blocks = blocks
        self.known_queue = known_queue
        self.before_evicting = before_evicting
        self.ask_below = ask_below
        for block in blocks:
            block.prev_free_block = block.next_free_block = None
        # The attribute behind vLLM's property, where there is one.
        self._hash_of = operator.attrgetter(
            "_block_hash" if hasattr(blocks[0], "_block_hash") else "block_hash")
        self.stripe_of = []
        for index, (_, count) in enumerate(stripes):
            self.stripe_of.extend([index] * count)
        self.num_free_blocks = 0
        self.fresh = 0  # loose blocks
        self.held = [0] * len(stripes)  # blocks added
        self.ranges = [[] for _ in stripes]  # the same as (first, count)
        self.live = [0] * len(stripes)
        self.loose = [[] for _ in stripes]
        self.known = [0] * len(stripes)  # cached blocks
        # Since post():
        self._came = []  # blocks that became cached
        self._went = []  # cached blocks that became live
        self._loosened = []  # the stripe of each live block that became loose
        # Held stripes without a live block, longest so first: without and with cached blocks.
        self.empty = {}
        self.empty_cached = {}
        self.empty_cached_blocks = 0  # size of the latter
        self.aside = {}  # free blocks of each condemned stripe
        self.aside_blocks = 0
        self._current = None  # the stripe that loose blocks come from, until it has none
        self._order = []  # the next ones; the fullest is last
        self._freed = 0  # since that order was made

    # ---- As vLLM's queue ---------------------------------------------------------------------

    def popleft(self):
        return self.popleft_n(1)[0]

    def popleft_n(self, count):
        # What nearly every call comes to: the stripe at hand has enough and stays in use, or there
        # are none but cached ones.
        stripe = self._current
        if stripe is not None and self.live[stripe]:
            stack = self.loose[stripe]
            if 0 < count < len(stack):
                taken = stack[:-count - 1:-1]
                del stack[-count:]
                self.live[stripe] += count
                self.fresh -= count
                self.num_free_blocks -= count
                return taken
        if count > self.fresh:
            free = self.num_free_blocks
            if count > free or free - self.fresh <= self.ask_below:
                self.before_evicting(count)
                if count > self.num_free_blocks:
                    raise ValueError("No free blocks available")
        taken = self._take_loose(count) if count and self.fresh else []
        if len(taken) < count:
            known = self.known_queue.popleft_n(count - len(taken))
            self._went += known
            taken += known
        self.num_free_blocks -= count
        return taken

    def remove(self, block):
        """The prefix cache puts a free block back into use."""
        if block.next_free_block is not None:
            self.known_queue.remove(block)
            self._went.append(block)
            self.num_free_blocks -= 1
            return
        stripe = self.stripe_of[block.block_id]
        if not self.live[stripe]:
            self._not_empty(stripe)
        self.live[stripe] += 1
        if stripe in self.aside:
            self.aside[stripe].remove(block)
            self.aside_blocks -= 1
            return
        self.loose[stripe].remove(block)
        self.fresh -= 1
        self.num_free_blocks -= 1

    def append(self, block):
        self.append_n((block,))

    def append_n(self, blocks):
        if blocks:
            self._free(blocks, self.known_queue.append_n)

    def prepend_n(self, blocks):
        if blocks:
            self._free(blocks, getattr(self.known_queue, "prepend_n", None))

    def get_all_free_blocks(self):
        found = [block for stack in self.loose for block in reversed(stack)]
        return found + self.known_queue.get_all_free_blocks()  # those aside are not to be had

    def _take_loose(self, count):
        taken = []
        while True:
            stripe = self._current
            if stripe is None:
                stripe = self._current = self._fullest()
            stack = self.loose[stripe]
            part = stack[-(count - len(taken)):]
            if part:
                del stack[-len(part):]
                part.reverse()
                taken += part
                self.fresh -= len(part)
                if not self.live[stripe]:
                    self._not_empty(stripe)
                self.live[stripe] += len(part)
            if not stack:
                self._current = None
            if len(taken) == count or not self.fresh:
                return taken

    def _fullest(self):
        """A stripe with loose blocks. pre: there is one."""
        if self._freed > STALE:
            self._order = []
        while True:
            while self._order:
                stripe = self._order.pop()
                if self.loose[stripe]:
                    return stripe
            self.post()
            live, held = self.live, self.held
            self._order = sorted((s for s, stack in enumerate(self.loose) if stack),
                                 key=lambda s: (live[s] / held[s], -s))
            self._freed = 0

    def _free(self, blocks, keep):
        """`keep` puts known ones into their queue."""
        if self.aside:
            blocks = self._set_aside(blocks)
        unknown = list(map(self._hash_of, blocks)).count(None)
        known = blocks
        if unknown:
            known = ()
            if unknown < len(blocks):
                known = [block for block in blocks if block.block_hash is not None]
                blocks = [block for block in blocks if block.block_hash is None]
            self._free_loose(blocks)
        if known:
            keep(known)
            self._came += known
            self.num_free_blocks += len(known)

    def _free_loose(self, blocks):
        loose, count = self.loose, len(blocks)
        stripes = list(map(self.stripe_of.__getitem__, map(NUMBER, blocks)))
        if stripes.count(stripes[0]) == count:  # as those of one request mostly are
            loose[stripes[0]].extend(blocks)
        else:
            for block, stripe in zip(blocks, stripes):
                loose[stripe].append(block)
        self._loosened += stripes
        self.fresh += count
        self._freed += count
        self.num_free_blocks += count

    def _set_aside(self, blocks):
        """Those of condemned stripes; the others are left."""
        self.post()
        left = []
        for block in blocks:
            stripe = self.stripe_of[block.block_id]
            if stripe not in self.aside:
                left.append(block)
                continue
            self.aside[stripe].append(block)
            self.aside_blocks += 1
            self.live[stripe] -= 1
            if not self.live[stripe]:
                self._now_empty(stripe)
        return left

    # ---- Stripes -----------------------------------------------------------------------------

    def post(self):
        """Enters into the books what blocks became since."""
        if not self._came and not self._went and not self._loosened:
            return
        stripe_of, live, known = self.stripe_of.__getitem__, self.live, self.known
        cached = collections.Counter(map(stripe_of, map(NUMBER, self._came)))
        taken = collections.Counter(map(stripe_of, map(NUMBER, self._went)))
        loosened = collections.Counter(self._loosened)
        self._came, self._went, self._loosened = [], [], []
        for stripe in cached.keys() | taken.keys() | loosened.keys():
            if not live[stripe]:
                self._not_empty(stripe)
            more = cached[stripe] - taken[stripe]
            known[stripe] += more
            live[stripe] -= more + loosened[stripe]
            if not live[stripe]:
                self._now_empty(stripe)

    def add(self, first, count):
        """Blocks of one stripe that have memory now, are free and were not added yet."""
        stripe = self.stripe_of[first]
        new = self.blocks[first:first + count]
        new.reverse()
        if self.held[stripe] and not self.live[stripe]:
            self._not_empty(stripe)
        self.loose[stripe].extend(new)
        self.held[stripe] += count
        self.ranges[stripe].append((first, count))
        self.fresh += count
        self.num_free_blocks += count
        if not self.live[stripe]:
            self._now_empty(stripe)

    def withdraw(self, stripe):
        """Takes all blocks of a stripe, which are all loose, out of the queue: its ranges."""
        self.post()
        self._not_empty(stripe)
        ranges, self.ranges[stripe] = self.ranges[stripe], []
        if stripe in self.aside:
            self.aside_blocks -= len(self.aside.pop(stripe))
        else:
            self.fresh -= self.held[stripe]
            self.num_free_blocks -= self.held[stripe]
        self.loose[stripe] = []
        self.held[stripe] = 0
        return ranges

    def condemn(self, blocks, most):
        """Condemns the emptiest stripes that have live blocks, until condemned ones have `blocks` or
        `most` stripes were added."""
        have = sum(self.held[stripe] for stripe in self.aside)
        if have >= blocks:
            return
        self.post()
        live, held = self.live, self.held
        for stripe in sorted((s for s, count in enumerate(live) if count and s not in self.aside),
                             key=lambda s: live[s] / held[s])[:most]:
            if have >= blocks:
                break
            have += held[stripe]
            cached = self.cached_in(stripe, held[stripe])
            for block in cached:
                self.known_queue.remove(block)
            free = self.loose[stripe] + cached
            self.fresh -= len(self.loose[stripe])
            self.num_free_blocks -= len(free)
            self.aside_blocks += len(free)
            self.loose[stripe], self.known[stripe] = [], 0
            self.aside[stripe] = free

    def pardon(self):
        """Nothing is condemned any more."""
        self.post()
        aside, self.aside, self.aside_blocks = self.aside, {}, 0
        for stripe, free in aside.items():
            if not free:
                continue
            if not self.live[stripe]:
                self._not_empty(stripe)
            self.live[stripe] += len(free)
            self._free(free, self.known_queue.append_n)
        self.post()

    def cached_in(self, stripe, most):
        """Cached blocks of a stripe, at most so many."""
        blocks = (block for first, count in self.ranges[stripe]
                  for block in self.blocks[first:first + count]
                  if block.next_free_block is not None)
        return list(itertools.islice(blocks, most))

    def forget(self, numbers):
        """The prefix cache does not know these blocks any more, as far as they are free."""
        self.post()
        for number in numbers:
            block = self.blocks[number]
            if block.next_free_block is None or block.block_hash is not None:
                continue
            stripe = self.stripe_of[number]
            self.known_queue.remove(block)
            if not self.live[stripe]:
                self._not_empty(stripe)
            self.known[stripe] -= 1
            self.loose[stripe].append(block)
            self.fresh += 1
            if not self.live[stripe]:
                self._now_empty(stripe)

    def forget_all(self):
        self.forget([block.block_id for block in self.known_queue.get_all_free_blocks()])

    def _now_empty(self, stripe):
        if self.known[stripe]:
            self.empty_cached[stripe] = None
            self.empty_cached_blocks += self.held[stripe]
        else:
            self.empty[stripe] = None

    def _not_empty(self, stripe):
        if self.known[stripe]:
            del self.empty_cached[stripe]
            self.empty_cached_blocks -= self.held[stripe]
        else:
            del self.empty[stripe]
