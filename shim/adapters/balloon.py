"""The balloon: blocks without memory are kept out of vLLM's free queue.

A Balloon sits on one BlockPool. Blocks in the free queue or in use have memory, always; the others
are withheld, stripe by stripe. The engine's scheduler, worker and this code share one thread, so
there is no lock: blocks are added when the engine asks for some, and taken back only after a step
(`settle`), never between the engine's check of the free count and its taking.

Withheld blocks of a stripe stay linked to each other, so that adding a stripe costs the same
whatever its size.
"""

import logging
import time

from _kvcached import client

WAIT_MS = 20  # longest wait for a stripe that is granted and still being mapped
PATIENCE = 0.05  # seconds after a refusal in which nothing is waited for again
PIN_RETRY = 0.05  # seconds between attempts to back everything
STRIPES_A_STEP = 2  # taken back after a step while requests run; all that can go once idle

log = logging.getLogger("kvcached")


class Broken(Exception):
    """The engine's or the library's books are not what this code relies on."""


class Balloon:
    """`cache` None: nothing can be added before all allocations are backed (see `pin`).

    `allocations` are addresses of the elastic allocations, `keep_cached` the most free blocks that
    may stay backed only because the prefix cache knows their contents, `report` takes a state for
    `kvcached stat`.
    """

    def __init__(self, pool, library, cache, allocations, keep_cached, report):
        self.pool = pool
        self.queue = pool.free_block_queue
        self.blocks = pool.blocks
        self.library = library
        self.cache = cache
        self.allocations = list(allocations)
        self.keep_cached = keep_cached
        self.report = report
        self.required = 0  # blocks that the engine last found it needs
        self.keep = 0  # free blocks not taken back after a step: what steps lately may take
        self.expected = 0
        self.in_use = 0
        self.cached_free = 0  # free blocks that the prefix cache knows
        self.impatient_until = 0.0
        self.blind = False  # what the scheduler will need cannot be told
        self.pinning = False
        self.retry_pin_at = 0.0
        total = len(self.blocks)
        stripes = self._stripes(total)
        self.stripe_of = []
        for index, (_, count) in enumerate(stripes):
            self.stripe_of.extend([index] * count)
        self.stripe_end = [first + count for first, count in stripes]
        self.held = [[] for _ in stripes]  # ranges that are the engine's now
        self.live = [0] * len(stripes)  # blocks in use
        self.cached = [0] * len(stripes)  # free blocks that the prefix cache knows
        self.used = bytearray(total)
        # Held stripes without a block in use, longest so first: with and without cached blocks.
        self.empty = {}
        self.empty_cached = {}
        self._withhold_all()

    def _stripes(self, total):
        if self.cache is None:
            return [(0, total)]
        code, stripes = self.cache.stripes()
        end = 0
        for first, count in stripes:
            if first != end or count == 0:
                raise Broken("stripes do not follow each other")
            end += count
        if code != client.OK or end != total:
            raise Broken("stripes of %d blocks for a pool of %d" % (end, total))
        return stripes

    def _withhold_all(self):
        queue = self.queue
        if queue.num_free_blocks != len(self.blocks) - 1 or not self.pool.null_block.is_null:
            raise Broken("a new block pool is not wholly free")
        head, tail = queue.fake_free_list_head, queue.fake_free_list_tail
        head.next_free_block = tail
        tail.prev_free_block = head
        queue.num_free_blocks = 0
        self.withheld = len(self.blocks) - 1
        self.used[self.pool.null_block.block_id] = 1

    def start(self):
        """The first blocks, so that the engine does not begin with none."""
        try:
            self.grow(1)
        except Exception as error:
            log.warning("kvcached: %r; the KV cache is pinned", error)
            self.pin(str(error) or repr(error))

    # ---- What the engine's calls tell --------------------------------------------------------

    def taken(self, blocks):
        """Free blocks came into use."""
        used, stripe_of, live = self.used, self.stripe_of, self.live
        for block in blocks:
            number = block.block_id
            if used[number]:
                continue
            used[number] = 1
            self.in_use += 1
            stripe = stripe_of[number]
            live[stripe] += 1
            if live[stripe] == 1:
                self.empty.pop(stripe, None)
                self.empty_cached.pop(stripe, None)

    def touched(self, blocks):
        """The prefix cache put free blocks back into use."""
        for block in blocks:
            if block.block_hash is not None:
                self.forget(block)
        self.taken(blocks)

    def forget(self, block):
        """A block that the prefix cache knew is free, and not known any more."""
        stripe = self.stripe_of[block.block_id]
        self.cached_free -= 1
        self.cached[stripe] -= 1
        if not self.cached[stripe] and stripe in self.empty_cached:
            del self.empty_cached[stripe]
            self.empty[stripe] = None

    def forget_all(self):
        self.cached_free = 0
        self.cached = [0] * len(self.cached)
        self.empty.update(self.empty_cached)
        self.empty_cached.clear()

    def freed(self, blocks):
        """References to blocks were dropped; those with none left are free."""
        used, stripe_of, live = self.used, self.stripe_of, self.live
        null = self.pool.null_block
        for block in blocks:
            number = block.block_id
            if block.ref_cnt or not used[number] or block is null:
                continue
            used[number] = 0
            self.in_use -= 1
            stripe = stripe_of[number]
            live[stripe] -= 1
            if block.block_hash is not None:
                self.cached_free += 1
                self.cached[stripe] += 1
            if not live[stripe]:
                (self.empty_cached if self.cached[stripe] else self.empty)[stripe] = None

    # ---- Growing -----------------------------------------------------------------------------

    def ahead(self, now, later):
        """Before a step that may take `now` blocks, and `later` more in steps to come: takes what
        is ready, lets the library prepare the rest, and does not wait."""
        if self.pinning:
            self._try_pin(0)
            return
        self.keep = max(now, self.keep - (self.keep >> 6) - 1)
        fresh = self.queue.num_free_blocks - self.cached_free
        if fresh < now and self.withheld and self.cached_free <= self.keep_cached:
            fresh += self._acquire(now - fresh, 0)
        self.expect(max(0, min(now + later - fresh, self.withheld)))

    def expect(self, blocks):
        if blocks != self.expected and (not blocks or not self.expected or
                                        abs(blocks - self.expected) * 4 > self.expected):
            self.expected = blocks
            if self.cache is not None:
                self.cache.expect(blocks)

    def before_taking(self, count):
        """The engine is about to take `count` blocks. Rather than drop what the prefix cache
        knows, grow, while there is memory and the prefix cache is within its limit."""
        free = self.queue.num_free_blocks
        if count > free:
            self.grow(count - free)
        elif count > free - self.cached_free and self.cached_free <= self.keep_cached:
            self.grow(count - free + self.cached_free)

    def make_room(self, extra):
        """The engine found that it cannot have `self.required` blocks and `extra` beyond. True
        when it can now."""
        need = self.required + extra
        free = self.queue.num_free_blocks
        if need <= free or need > free + self.withheld:
            return False
        self.grow(need - free)
        return need <= self.queue.num_free_blocks

    def grow(self, need):
        """Adds at least `need` blocks. Waits while they are being mapped; less comes only when the
        pool refuses, or when mapping takes longer than WAIT_MS."""
        if self.pinning:
            self._try_pin(WAIT_MS)
            return
        need = min(need, self.withheld)
        if not need:
            return
        now = time.monotonic()
        wait_ms = WAIT_MS if now >= self.impatient_until else 0
        if self._acquire(need, wait_ms) < need and wait_ms:
            self.impatient_until = now + WAIT_MS / 1000 + PATIENCE

    def _acquire(self, need, wait_ms):
        code, ranges = self.cache.acquire(need, wait_ms)
        if code not in (client.OK, client.SHORT):
            raise Broken("acquire answered %d" % code)
        return self._add(ranges)

    def _add(self, ranges):
        added = 0
        for first, count in ranges:
            end = first + count
            if count <= 0 or end > len(self.blocks):
                raise Broken("acquire gave blocks %d to %d" % (first, end - 1))
            added += count
            while first < end:
                stripe = self.stripe_of[first]
                stop = min(end, self.stripe_end[stripe])
                self._add_part(stripe, first, stop)
                first = stop
        return added

    def _add_part(self, stripe, first, stop):
        for other, count in self.held[stripe]:
            if first < other + count and other < stop:
                raise Broken("acquire gave block %d twice" % max(first, other))
        if self.used[first] or self.used[stop - 1]:
            raise Broken("acquire gave a block in use")
        self.held[stripe].append((first, stop - first))
        self._splice(self.blocks[first], self.blocks[stop - 1], stop - first)
        self.withheld -= stop - first
        if not self.live[stripe] and stripe not in self.empty_cached:
            self.empty[stripe] = None

    def _splice(self, front, back, count):
        """With a prefix cache, the queue's order is that of eviction: new blocks go first, as
        unused ones do in stock. Without, they go last, so that fuller stripes are used first."""
        queue = self.queue
        if self.pool.enable_caching:
            before = queue.fake_free_list_head
            after = before.next_free_block
        else:
            after = queue.fake_free_list_tail
            before = after.prev_free_block
        before.next_free_block = front
        front.prev_free_block = before
        back.next_free_block = after
        after.prev_free_block = back
        queue.num_free_blocks += count

    # ---- Shrinking ---------------------------------------------------------------------------

    def settle(self, idle):
        """After a step: hands back stripes that nothing uses and the coming steps will not need.
        The library keeps some of them warm, so taking them again is cheap."""
        if self.pinning:
            return
        if not self.empty and not self.empty_cached:
            return
        if idle:
            self.keep = 0
            self.expect(0)
        budget = len(self.held) if idle else STRIPES_A_STEP
        queue = self.queue
        while budget and self.cached_free > self.keep_cached and self.empty_cached:
            stripe = next(iter(self.empty_cached))
            if queue.num_free_blocks - self._size(stripe) < self.keep:
                break
            budget -= 1
            self._hand_back(stripe)
        while budget and self.empty:
            stripe = next(iter(self.empty))
            if queue.num_free_blocks - self.cached_free - self._size(stripe) < self.keep:
                break
            budget -= 1
            self._hand_back(stripe)

    def _size(self, stripe):
        return sum(count for _, count in self.held[stripe])

    def _hand_back(self, stripe):
        self.empty.pop(stripe, None)
        self.empty_cached.pop(stripe, None)
        ranges = self.held[stripe]
        members = [block for first, count in ranges for block in self.blocks[first:first + count]]
        for block in members:
            # Somebody took a block past the pool's methods: its stripe stays for good.
            if block.ref_cnt or block.next_free_block is None:
                return
        for block in members:
            if block.block_hash is not None:
                self.pool._maybe_evict_cached_block(block)
            self.queue.remove(block)
        self.held[stripe] = []
        self.withheld += len(members)
        self._link(stripe)
        code = self.cache.release(ranges)
        if code != client.OK:
            raise Broken("release answered %d" % code)

    def _link(self, stripe):
        """Links the blocks of a stripe that is withheld as a whole to each other again."""
        end = self.stripe_end[stripe]
        previous = None
        for block in self.blocks[self.stripe_end[stripe - 1] if stripe else 0:end]:
            if block is self.pool.null_block:
                continue
            if previous is not None:
                previous.next_free_block = block
                block.prev_free_block = previous
            previous = block

    # ---- Giving up ---------------------------------------------------------------------------

    def pin(self, why):
        """Stops managing: backs everything and gives the engine all blocks. While the pool
        refuses, what is withheld stays so, and every later need tries again."""
        self.pinning = True
        self.why = why
        self.report("pinned, waiting for memory: " + why)
        self._try_pin(0)

    def _try_pin(self, wait_ms):
        now = time.monotonic()
        if now < self.retry_pin_at:
            return
        self.retry_pin_at = float("inf")  # stays, should what follows raise
        whole = self._back_all(wait_ms) if self.cache is None else self._acquire_all(wait_ms)
        self.retry_pin_at = time.monotonic() + PIN_RETRY
        if whole:
            self.pool._kvcached = None
            self.report("pinned: " + self.why)

    def _acquire_all(self, wait_ms):
        while self.withheld:
            if not self._acquire(self.withheld, wait_ms):
                return False
        return True

    def _back_all(self, wait_ms):
        while self.allocations:
            if self.library.back_whole(self.allocations[0], wait_ms) != client.OK:
                return False
            self.allocations.pop(0)
        self._add([(1, len(self.blocks) - 1)])
        return True
