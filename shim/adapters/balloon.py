"""The balloon: blocks without memory are kept out of vLLM's free queue.

A Balloon sits on one BlockPool, whose free queue it replaces by a StripedQueue. Blocks in the queue
or in use have memory, always; the others are withheld, stripe by stripe. The engine's scheduler,
worker and this code share one thread, so there is no lock: stripes are added when the engine needs
them, and taken back only after a step (`settle`), never between the engine's check of the free
count and its taking.
"""

import logging
import time

from _kvcached import Glance, client, striped_queue

WAIT_MS = 20  # longest wait for a stripe that is granted and still being mapped
PATIENCE = 0.05  # seconds after a refusal in which nothing is waited for again
PIN_RETRY = 0.05  # seconds between attempts to back everything
# Of what nobody waits for, so much goes back at a time, and no sooner than PAUSE seconds after the
# time before: little enough for no request to notice. The agent's unmapping is felt by a busy GPU;
# and what is needed again comes as new pages, which hold up an engine's small copies.
STRIPES_BUSY = 1
EVICTIONS_BUSY = 16  # each is work of the engine's own; and before any growth, these blocks go first
PAUSE = 1.0
# An idle engine goes on at that pace for PATIENCE_IDLE, as loads come and go, and is back at its least
# some seconds later; a request that comes meanwhile waits for some milliseconds at most. (One that
# nobody wakes, without an input queue, hands back all at once.)
PATIENCE_IDLE = 4.0
EVICTIONS_PATIENT = 32
STRIPES_IDLE = 8
EVICTIONS_IDLE = 512  # or this share of what has to go
EVICTIONS_IDLE_SHARE = 1 / 16
PAUSE_IDLE = 0.1
# After a step under pressure.
STRIPES_UNDER_PRESSURE = 2
EVICTIONS_UNDER_PRESSURE = 512

log = logging.getLogger("kvcached")


class Broken(Exception):
    """The engine's or the library's books are not what this code relies on."""


class Balloon(Glance):
    """`cache` None: nothing can be added before all allocations are backed (see `pin`).

    `allocations` are addresses of the elastic allocations. `keep_cached`: of free blocks that only
    the prefix cache knows, so many are worth growing for rather than dropping one, and stripes
    without anything else stay backed up to so many blocks. `least`: blocks of one longest request,
    which are never drained for others. `report` takes a state for
    `kvcached stat`.

    glance(scheduler)  before a step: it finds what it needs, and what can be foreseen is being
                       prepared; else ahead() is to be called with seen(), what was seen, or None
    foresee(*seen)     what lacks for it; notes `calm`, `keep`, `sure`
    to_be_had()        blocks without growing
    is_told(blocks)    it makes no difference to the library to be told that so many are expected
    rests(scheduler)   whether settle() may be left out after a step

    What both go by are numbers (vllm_glance.cpp tells what of):

    calm      for so many steps like the last nothing has to be looked at
    keep      loose blocks not taken back after a step: what steps lately may take
    expected  last told to the library
    arrived   blocks that requests on their way will need
    withheld  blocks without memory
    sure      the step cannot run out of blocks (see `ahead`)
    idle, blind, pinning, hand_back_at
    """

    def __init__(self, pool, library, cache, allocations, keep_cached, least, report):
        self.pool = pool
        self.library = library
        self.cache = cache
        self.allocations = list(allocations)
        self.keep_cached = keep_cached
        self.least = least
        self.report = report
        self.told_in_use = 0
        self.impatient_until = 0.0
        self.on_demand = False  # who finds no room asks for more
        self.needs = None  # tells what the scheduler will need; made at its first step
        # An idle engine is woken again for what is left, so that it need not hand back all at once.
        self.woken = False
        self.patient_until = 0.0
        self.why = ""
        self.retry_pin_at = 0.0
        self.total = len(pool.blocks) - 1  # but for the null block
        stripes = self._stripes(len(pool.blocks))
        if pool.free_block_queue.num_free_blocks != self.total or not pool.null_block.is_null:
            raise Broken("a new block pool is not wholly free")
        self.queue = striped_queue.StripedQueue(
            pool.blocks, stripes, self._before_evicting, keep_cached)
        self.begin(self.queue, getattr(cache, "pressure_word", 0))
        self.withheld = self.total
        pool.free_block_queue = self.queue

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

    def start(self):
        """The first blocks, so that the engine does not begin with none."""
        try:
            self.grow(1)
        except Exception as error:
            self.fail(error)

    def fail(self, error):
        """A failure of ours: the engine goes on with everything backed. Never raises."""
        log.warning("kvcached: %r; the KV cache is pinned", error, exc_info=error)
        try:
            self.pin(str(error) or repr(error))
        except Exception as second:
            log.warning("kvcached: %r while pinning", second)

    def in_use(self):
        """Blocks that the engine has."""
        return self.total - self.hidden() - self.queue.num_free_blocks

    def hidden(self):
        """Free blocks that the engine does not see: without memory, or on their way to lose it."""
        return self.withheld + self.queue.aside

    # ---- Growing -----------------------------------------------------------------------------

    def look_by(self, needs):
        """`needs` tells what the scheduler will need."""
        self.needs = needs
        self.watch(needs)

    def ahead(self, now, later, surely, steps):
        """Before a step that will take `now` blocks, and `later` more in those to come: takes what
        is ready, lets the library prepare the rest, and does not wait. `surely` suffice for the step:
        `sure` tells that it cannot run out. `calm` tells for how many steps like it, at most
        `steps`, nothing has to be looked at again."""
        if self.pinning:
            self.arrived = 0
            self.idle = False
            self._try_pin(0)
            self.sure = not self.withheld
            return
        if self.withheld:
            need = now - self.to_be_had()
            if need > 0:
                self._acquire(need, 0)
        self.expect(self.foresee(now, later, surely, steps))

    def expect(self, blocks):
        if not self.is_told(blocks):
            self.expected = blocks
            if self.cache is not None:
                self.cache.expect(blocks)
                if self.expected != blocks:  # by another thread, which may have told it before
                    self.cache.expect(self.expected)

    def arriving(self, tokens):
        """A request is on its way to the scheduler: what it will need is prepared meanwhile, as far as
        the next step can take it. Called by any thread; what two of them count at once may be lost,
        which costs time only."""
        needs = self.needs
        if needs is None or self.pinning or self.blind:
            return
        self.arrived = min(self.arrived + needs.blocks(tokens), needs.in_a_step())
        self.expect(min(self.withheld, max(self.expected, self.arrived - self.to_be_had())))

    def _before_evicting(self, count):
        """Rather than drop what the prefix cache knows, grow, while there is memory and the prefix
        cache is within its limit."""
        if not self.withheld:
            return
        try:
            free = self.queue.num_free_blocks
            if count > free:
                self.grow(count - free)
            else:  # the queue asks only where the prefix cache is within its limit
                self.grow(count - self.queue.fresh)
        except Exception as error:
            self.fail(error)

    def make_room(self, need, beyond):
        """The engine found that it cannot have `need` blocks, and perhaps not `beyond` more. True
        when it should ask again."""
        try:
            free = self.queue.num_free_blocks
            want = need + beyond
            if want > free + self.withheld:
                want = need  # it can only have them if nothing beyond was asked for
            if want <= free or want > free + self.withheld:
                return False
            self.grow(want - free)
        except Exception as error:
            self.fail(error)
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
            self.queue.add(first, count)
            self.withheld -= count
            added += count
        return added

    # ---- Shrinking ---------------------------------------------------------------------------

    def settle(self, idle):
        """After a step: hands back stripes that nothing uses and the coming steps will not need.
        The library keeps some of them warm, so taking them again is cheap."""
        if self.pinning:
            self._try_pin(0)
            return
        pressure = self.cache.pressure()
        now = time.monotonic()
        if idle:
            self.calm = self.keep = self.arrived = 0
            self.expect(0)
            if not self.idle:
                self.patient_until = now + PATIENCE_IDLE
                if self.needs is not None:
                    self.needs.forget()
            self.idle = True
        if idle or pressure or self.queue.condemned or now >= self.hand_back_at:
            self._shrink(pressure, idle, now)
        used = self.in_use()
        if idle or abs(used - self.told_in_use) * 16 > self.told_in_use:
            self.told_in_use = used
            self.cache.in_use(used)

    def _shrink(self, pressure, idle, now):
        queue = self.queue
        if queue.refused:
            raise Broken("%d blocks were freed twice" % queue.refused)
        if queue.condemned and not pressure:
            queue.pardon()
        cached_only = queue.cached_only_blocks()
        # While others wait, what only the prefix cache knows goes first.
        keep_cached = min(self.keep_cached, max(0, cached_only - pressure))
        surplus = cached_only - keep_cached
        if pressure:
            self.keep = self.calm = 0  # nothing is kept for later
            self._give_way(pressure - surplus)
        if idle and (pressure or not self.woken):
            self._hand_back(keep_cached, self.queue.stripes, self.total)
        elif pressure:
            self._hand_back(keep_cached, STRIPES_UNDER_PRESSURE, EVICTIONS_UNDER_PRESSURE)
        elif now >= self.hand_back_at:
            if idle and now >= self.patient_until:
                self._hand_back(keep_cached, STRIPES_IDLE,
                                max(EVICTIONS_IDLE, int(surplus * EVICTIONS_IDLE_SHARE)))
                self.hand_back_at = now + PAUSE_IDLE
            else:
                self._hand_back(keep_cached, STRIPES_BUSY,
                                EVICTIONS_PATIENT if idle else EVICTIONS_BUSY)
                self.hand_back_at = now + PAUSE

    def crowded(self):
        """Whether there is something to hand back. By any thread."""
        return bool(self.expected or self.queue.empty() or
                    self.queue.cached_only_blocks() > self.keep_cached)

    def _give_way(self, pressure):
        """Others are entitled to so many of the blocks in use: the emptiest stripes drain, so that
        the engine queues or preempts by its own means. One longest request always fits."""
        if pressure <= 0:
            if self.queue.condemned:
                self.queue.pardon()
            return
        spare = self.total - self.withheld - self.least
        self.queue.condemn(min(pressure, spare), spare, STRIPES_UNDER_PRESSURE)

    def _hand_back(self, keep_cached, most, evictions):
        queue, given, before = self.queue, [], evictions
        # Stripes that only the prefix cache keeps, the least recently used first.
        left = queue.cached_only_blocks()
        for stripe in queue.cached_only() if left > keep_cached else ():
            if (evictions <= 0 or left <= keep_cached or
                    queue.num_free_blocks - queue.held(stripe) < self.keep):
                break
            known = queue.cached_in(stripe, evictions)
            evictions -= len(known)
            for block in known:
                self.pool._maybe_evict_cached_block(block)
            queue.forget([block.block_id for block in known])
            left -= queue.held(stripe)
        if evictions < before:
            self.cache.evicted(before - evictions)
        for stripe in queue.empty()[:most]:
            condemned = queue.is_condemned(stripe)
            if not condemned and queue.fresh - queue.held(stripe) < self.keep:
                break
            for block in queue.stack(stripe) if condemned else ():
                if block.block_hash is not None:
                    self.pool._maybe_evict_cached_block(block)
            ranges = queue.withdraw(stripe)
            self.withheld += sum(count for _, count in ranges)
            given += ranges
        if not given:
            return
        self.calm = 0  # that was about what there was
        code = self.cache.release(given)
        if code != client.OK:
            raise Broken("release answered %d" % code)

    def forgotten(self, numbers):
        """The prefix cache dropped what it knew of these blocks."""
        self.queue.forget(numbers)

    # ---- Giving up ---------------------------------------------------------------------------

    def pin(self, why):
        """Stops managing: backs everything and gives the engine all blocks. While the pool
        refuses, what is withheld stays so, and every later need tries again."""
        self.pinning = True
        self.calm = 0
        self.sure = False
        self.why = why
        self.report("pinned, waiting for memory: " + why)
        self._try_pin(0)

    def _try_pin(self, wait_ms):
        now = time.monotonic()
        if now < self.retry_pin_at:
            return
        self.retry_pin_at = float("inf")  # stays, should what follows raise
        self.queue.pardon()
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
        self._add([(1, self.total)])
        return True
