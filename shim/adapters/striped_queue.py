"""vLLM's queue of free blocks, ordered by the stripes that back them.

It takes the place of BlockPool.free_block_queue, so that it alone decides which block goes next,
and knows of every block that comes or goes, whoever moves it:

  first   blocks whose contents nobody knows, from the fullest stripe: the emptier ones run dry
  then    blocks that the prefix cache knows, the least recently freed first, as in stock

Only blocks that have memory are in it. What a stripe holds is one of: live (the engine's), loose
(free, unknown) or cached (free, known). A condemned stripe gives no blocks any more and goes when
its last live one is freed: its free blocks are aside. Nothing here costs more than a few operations a block, and
most cost less, because a stripe's loose blocks move as one list.
"""

import collections
import itertools
import operator

NUMBER = operator.attrgetter("block_id")
FEW = 4  # blocks that are not worth being looked at together
# Loose blocks freed before the order of stripes, from the fullest, is made anew.
STALE = 512


def counted(stripes):
    """Pairs of a stripe and how often it occurs. Blocks of one request mostly share a stripe."""
    count = stripes.count(stripes[0])
    if count == len(stripes):
        return ((stripes[0], count),)
    return collections.Counter(stripes).items()


class StripedQueue:
    """`blocks`: all blocks of the pool by number. `stripes`: (first, count) of each, in order.
    `before_evicting(count)` is called when `count` blocks are taken and some of them would be
    cached ones, or are not there: it may add stripes."""

    def __init__(self, blocks, stripes, before_evicting):
        self.blocks = blocks
        self.before_evicting = before_evicting
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
        self.cached = collections.OrderedDict()  # block by number, least recently freed first
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
        # What nearly every call comes to: the stripe at hand has enough and stays in use.
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
            self.before_evicting(count)
            if count > self.num_free_blocks:
                raise ValueError("No free blocks available")
        taken = self._take_loose(count) if count and self.fresh else []
        if len(taken) < count:
            self._take_cached(count - len(taken), taken)
        self.num_free_blocks -= count
        return taken

    def _take_cached(self, count, taken):
        stripe_of, live, known, oldest = self.stripe_of, self.live, self.known, self.cached.popitem
        if count < FEW:
            for _ in range(count):
                number, block = oldest(False)
                stripe = stripe_of[number]
                if not live[stripe]:
                    self._not_empty(stripe)
                live[stripe] += 1
                known[stripe] -= 1
                taken.append(block)
            return
        blocks = [oldest(False)[1] for _ in range(count)]
        taken += blocks
        stripes = list(map(stripe_of.__getitem__, map(NUMBER, blocks)))
        for stripe, part in counted(stripes):
            if not live[stripe]:
                self._not_empty(stripe)
            live[stripe] += part
            known[stripe] -= part

    def remove(self, block):
        """The prefix cache puts a free block back into use."""
        stripe = self.stripe_of[block.block_id]
        if not self.live[stripe]:
            self._not_empty(stripe)  # before its cached blocks change: they say how it is listed
        self.live[stripe] += 1
        if stripe in self.aside:
            self.aside[stripe].remove(block)
            self.aside_blocks -= 1
            return
        if self.cached.pop(block.block_id, None) is not None:
            self.known[stripe] -= 1
        else:
            self.loose[stripe].remove(block)
            self.fresh -= 1
        self.num_free_blocks -= 1

    def append(self, block):
        self.append_n((block,))

    def append_n(self, blocks):
        self._free(blocks, True)

    def prepend_n(self, blocks):
        if blocks:
            self._free(blocks, False)

    def get_all_free_blocks(self):
        found = [block for stack in self.loose for block in reversed(stack)]
        found.extend(self.cached.values())
        return found  # those aside are not to be had

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
            live, held = self.live, self.held
            self._order = sorted((s for s, stack in enumerate(self.loose) if stack),
                                 key=lambda s: (live[s] / held[s], -s))
            self._freed = 0

    def _free(self, blocks, last):
        """`last`: cached ones are the last to be taken again, not the first."""
        count = len(blocks)
        if count < FEW or self.aside:
            self._free_each(blocks, last)
            return
        # All of them alike, as vLLM frees them since 0.22, if in two calls.
        unknown = list(map(self._hash_of, blocks)).count(None)
        if unknown != count and (unknown or not last):
            self._free_each(blocks, last)
            return
        numbers = list(map(NUMBER, blocks))
        stripes = list(map(self.stripe_of.__getitem__, numbers))
        parts = counted(stripes)
        if not unknown:
            self.cached.update(zip(numbers, blocks))
            known = self.known
            for stripe, part in parts:
                known[stripe] += part
        else:
            self.fresh += count
            self._freed += count
            loose = self.loose
            if len(parts) == 1:
                loose[stripes[0]].extend(blocks)
            else:
                for block, stripe in zip(blocks, stripes):
                    loose[stripe].append(block)
        self.num_free_blocks += count
        live = self.live
        for stripe, part in parts:
            live[stripe] -= part
            if not live[stripe]:
                self._now_empty(stripe)

    def _free_each(self, blocks, last):
        stripe_of, live, loose, cached = self.stripe_of, self.live, self.loose, self.cached
        hash_of = self._hash_of
        count = fresh = 0
        for block in blocks:
            number = block.block_id
            stripe = stripe_of[number]
            if stripe in self.aside:
                self._set_aside(stripe, block)
                continue
            count += 1
            if hash_of(block) is None:
                loose[stripe].append(block)
                fresh += 1
            else:
                cached[number] = block
                self.known[stripe] += 1
                if not last:
                    cached.move_to_end(number, last=False)
            live[stripe] -= 1
            if not live[stripe]:
                self._now_empty(stripe)
        self.num_free_blocks += count
        self.fresh += fresh
        self._freed += fresh

    # ---- Stripes -----------------------------------------------------------------------------

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
        live, held = self.live, self.held
        for stripe in sorted((s for s, count in enumerate(live) if count and s not in self.aside),
                             key=lambda s: live[s] / held[s])[:most]:
            if have >= blocks:
                break
            have += held[stripe]
            free = self.loose[stripe] + [self.cached[number] for first, count in self.ranges[stripe]
                                         for number in range(first, first + count)
                                         if number in self.cached]
            for block in free:
                self.cached.pop(block.block_id, None)
            self.fresh -= len(self.loose[stripe])
            self.num_free_blocks -= len(free)
            self.aside_blocks += len(free)
            self.loose[stripe], self.known[stripe] = [], 0
            self.aside[stripe] = free

    def pardon(self):
        """Nothing is condemned any more."""
        for stripe in list(self.aside):
            free = self.aside.pop(stripe)
            self.aside_blocks -= len(free)
            if not self.live[stripe]:
                self._not_empty(stripe)
            self.live[stripe] += len(free)
            self._free(free, True)

    def _set_aside(self, stripe, block):
        self.aside[stripe].append(block)
        self.aside_blocks += 1
        self.live[stripe] -= 1
        if not self.live[stripe]:
            self._now_empty(stripe)

    def cached_in(self, stripe, most):
        """Cached blocks of a stripe, at most so many."""
        numbers = (number for first, count in self.ranges[stripe]
                   for number in range(first, first + count) if number in self.cached)
        return [self.cached[number] for number in itertools.islice(numbers, most)]

    def forget(self, numbers):
        """The prefix cache does not know these blocks any more, as far as they are free."""
        for number in numbers:
            block = self.cached.get(number)
            if block is None or block.block_hash is not None:
                continue
            stripe = self.stripe_of[number]
            del self.cached[number]
            if not self.live[stripe]:
                self._not_empty(stripe)
            self.known[stripe] -= 1
            self.loose[stripe].append(block)
            self.fresh += 1
            if not self.live[stripe]:
                self._now_empty(stripe)

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
