"""vLLM's queue of free blocks, ordered by the stripes that back them.

It takes the place of BlockPool.free_block_queue, so that it alone decides which block goes next,
whoever moves it:

  first   blocks whose contents nobody knows, from the fullest stripe: the emptier ones run dry
  then    blocks that the prefix cache knows, the least recently freed first, as in stock

Only blocks that have memory are in it. What a stripe holds is one of: live (the engine's), loose
(free, unknown) or cached (free, known). A condemned stripe gives no blocks any more and goes when
its last live one is freed: its free blocks are aside.

The scheduler calls this for every block, so nothing is counted here that the blocks tell by
themselves when somebody asks (`survey`, `condemn`): the cached ones lie in a queue of the engine's
own class, `known_queue`, so that of all blocks those in it, and no others, have links.
"""

import operator

NEXT = operator.attrgetter("next_free_block")
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
        self.loose = [[] for _ in stripes]
        # Held stripes without a live block at the last survey: without and with cached blocks.
        self.empty = {}
        self.empty_cached = set()
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
        # What nearly every call comes to: the stripe at hand has enough, or there are none but
        # cached ones.
        stripe = self._current
        if stripe is not None:
            stack = self.loose[stripe]
            if 0 < count < len(stack):
                taken = stack[:-count - 1:-1]
                del stack[-count:]
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
            taken += self.known_queue.popleft_n(count - len(taken))
        self.num_free_blocks -= count
        return taken

    def remove(self, block):
        """The prefix cache puts a free block back into use."""
        if block.next_free_block is not None:
            self.known_queue.remove(block)
            self.num_free_blocks -= 1
            return
        stripe = self.stripe_of[block.block_id]
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
            if not stack:
                self._current = None
            if len(taken) == count or not self.fresh:
                return taken

    def _fullest(self):
        """A stripe with loose blocks. pre: there is one. Cached ones count as if they were live."""
        if self._freed > STALE:
            self._order = []
        while True:
            while self._order:
                stripe = self._order.pop()
                if self.loose[stripe]:
                    return stripe
            held = self.held
            shares = sorted((-len(stack) / held[s], -s) for s, stack in enumerate(self.loose) if stack)
            self._order = [-s for _, s in shares]
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
            loose, stripe_of = self.loose, self.stripe_of
            for block in blocks:
                loose[stripe_of[block.block_id]].append(block)
            self.fresh += unknown
            self._freed += unknown
            self.num_free_blocks += unknown
        if known:
            keep(known)
            self.num_free_blocks += len(known)

    def _set_aside(self, blocks):
        """Those of condemned stripes; the others are left."""
        left = []
        for block in blocks:
            aside = self.aside.get(self.stripe_of[block.block_id])
            if aside is None:
                left.append(block)
            else:
                aside.append(block)
                self.aside_blocks += 1
        return left

    # ---- Stripes -----------------------------------------------------------------------------

    def add(self, first, count):
        """Blocks of one stripe that have memory now, are free and were not added yet."""
        stripe = self.stripe_of[first]
        new = self.blocks[first:first + count]
        new.reverse()
        self.loose[stripe].extend(new)
        self.held[stripe] += count
        self.ranges[stripe].append((first, count))
        self.fresh += count
        self.num_free_blocks += count

    def survey(self):
        """Finds the stripes without a live block."""
        empty, cached = set(), set()
        for stripe, held in enumerate(self.held):
            if not held:
                continue
            loose = len(self.aside.get(stripe, self.loose[stripe]))
            if loose == held:
                empty.add(stripe)
            elif (stripe not in self.aside and held - loose <= self.known_queue.num_free_blocks and
                  not self._has_live(stripe, loose)):
                cached.add(stripe)
        # Later stripes are larger; the small ones serve whoever comes next.
        self.empty = dict.fromkeys(sorted(empty, reverse=True))
        self.empty_cached = cached
        self.empty_cached_blocks = sum(map(self.held.__getitem__, cached))

    def _has_live(self, stripe, loose):
        """`loose`: how many of its blocks are. Looks no further than at the first live ones."""
        for first, count in self.ranges[stripe]:
            for block in self.blocks[first:first + count]:
                if block.next_free_block is None:
                    loose -= 1
                    if loose < 0:
                        return True
        return False

    def withdraw(self, stripe):
        """Takes all blocks of an empty stripe, none of which is cached, out of the queue: its
        ranges."""
        del self.empty[stripe]
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
        shares = []
        for stripe, held in enumerate(self.held):
            if held and stripe not in self.aside:
                cached = self.cached_in(stripe, held)
                live = held - len(self.loose[stripe]) - len(cached)
                if live:
                    shares.append((live / held, stripe, cached))
        for _, stripe, cached in sorted(shares)[:most]:
            if have >= blocks:
                break
            have += self.held[stripe]
            for block in cached:
                self.known_queue.remove(block)
            free = self.loose[stripe] + cached
            self.fresh -= len(self.loose[stripe])
            self.num_free_blocks -= len(free)
            self.aside_blocks += len(free)
            self.loose[stripe] = []
            self.aside[stripe] = free

    def pardon(self):
        """Nothing is condemned any more."""
        aside, self.aside, self.aside_blocks = self.aside, {}, 0
        for free in aside.values():
            self.append_n(free)

    def cached_in(self, stripe, most):
        """Cached blocks of a stripe, at most so many."""
        found = []
        for first, count in self.ranges[stripe]:
            found += filter(NEXT, self.blocks[first:first + count])
        return found[:most]

    def by_age(self):
        """The empty stripes with cached blocks, the one whose last block was freed first in front."""
        last, stripe_of = {}, self.stripe_of
        for place, block in enumerate(self.known_queue.get_all_free_blocks()):
            last[stripe_of[block.block_id]] = place
        return sorted(self.empty_cached, key=last.__getitem__)

    def forget(self, numbers):
        """The prefix cache does not know these blocks any more, as far as they are free."""
        for number in numbers:
            block = self.blocks[number]
            if block.next_free_block is None or block.block_hash is not None:
                continue
            self.known_queue.remove(block)
            self.loose[self.stripe_of[number]].append(block)
            self.fresh += 1

    def forget_all(self):
        self.forget([block.block_id for block in self.known_queue.get_all_free_blocks()])
