"""A faithful double of the library's calls for adapters: a pool of stripes that grants late, grants
less, or refuses, and that checks whatever it is told."""
import random
import time

OK, INVALID, NOT_ELASTIC, SHORT, OFF = 0, -1, -2, -3, -4


class Library:
    """`pool_blocks`: how many blocks can have memory at once, warm ones included; change it at any
    time. `late`: the chance that memory granted is not mapped yet when it is not waited for."""

    def __init__(self, seed=0, pool_blocks=1 << 60, late=0.0, first_stripe=4, largest_stripe=32):
        self.random = random.Random(seed)
        self.pool_blocks = pool_blocks
        self.late = late
        self.first_stripe = first_stripe
        self.largest_stripe = largest_stripe
        self.tags = []
        self.elastic = {}  # address -> size of each elastic allocation
        self.whole = set()  # those backed whole
        self.off = False
        self.plain_allocations = set()  # numbers of tagged allocations that come out plain
        self.refuse_create = False
        self.refuse_whole = False
        self.caches = []
        self.states = []
        self.limit = 1 << 40  # bytes that this tenant can have
        self.longest = 1 << 30  # tokens of the longest request that fits now
        self.next_address = 0x7F0000000000
        self.models = []

    # What an engine's allocator asks.
    def allocate(self, size):
        address = self.next_address
        self.next_address += (size + (1 << 21)) & ~((1 << 21) - 1)
        if self.tags and not self.off:
            if len(self.elastic) not in self.plain_allocations:
                self.elastic[address] = size
            else:
                self.plain_allocations.discard(len(self.elastic))
        return address

    def max_seq_len(self):
        return self.longest

    def tag_push(self, tag):
        self.tags.append(tag)
        return OK

    def tag_pop(self):
        self.tags.pop()
        return OK

    def resident(self, address, size):
        if self.off:
            return OFF, 0
        for base, length in self.elastic.items():
            if base <= address < base + length:
                return (OK, 0) if address + size <= base + length else (INVALID, 0)
        return NOT_ELASTIC, 0

    def back_whole(self, address, wait_ms):
        if self.resident(address, 1)[0] != OK or any(c.alive and address in c.claims
                                                     for c in self.caches):
            return INVALID
        if self.refuse_whole:
            return SHORT
        self.whole.add(address)
        return OK

    def report(self, adapter, state):
        self.states.append(state)
        return OK

    def register_model(self, *shape):
        self.models.append(shape)
        return OK, self.limit

    def create_cache(self, segments, blocks, pinned):
        if self.refuse_create:
            return SHORT, None
        for base, stride, block_bytes in segments:
            code, _ = self.resident(base, (blocks - 1) * stride + block_bytes)
            if code != OK:
                return code, None
        cache = Cache(self, segments, blocks, pinned)
        self.caches.append(cache)
        return OK, cache


class Cache:
    def __init__(self, library, segments, blocks, pinned):
        self.library = library
        self.segments = list(segments)
        self.claims = {base for base, _, _ in segments}
        self.alive = True
        self.ranges = []
        first, size = 0, library.first_stripe
        while first < blocks:
            count = min(size, blocks - first)
            self.ranges.append((first, count))
            first += count
            size = min(size * 2, library.largest_stripe)
        self.pinned = {b for start, count in pinned for b in range(start, start + count)}
        self.backed = set()  # stripes
        self.live = set(self.pinned)  # blocks
        self.expected = 0
        self.told_in_use = None
        self.told_evicted = 0
        self.waited_ms = 0
        self.acquires = self.releases = 0
        self.broken = False
        for index, (start, count) in enumerate(self.ranges):
            if self.pinned & set(range(start, start + count)):
                self.backed.add(index)

    def destroy(self):
        self.alive = False
        return OK

    def stripes(self):
        return OK, list(self.ranges)

    def free_of(self, index):
        start, count = self.ranges[index]
        return [b for b in range(start, start + count) if b not in self.live]

    def backed_blocks(self):
        return sum(self.ranges[i][1] for i in list(self.backed))  # or a waiting thread stumbles

    def back_one(self):
        """One more stripe, unless the pool refuses or none is left."""
        for index, (_, count) in enumerate(self.ranges):
            if index not in self.backed:
                if self.backed_blocks() + count > self.library.pool_blocks:
                    return False
                self.backed.add(index)
                return True
        return False

    def acquire(self, blocks, wait_ms):
        if self.broken or not self.alive:
            return INVALID, []
        self.acquires += 1
        self.waited_ms += wait_ms
        taken, got = [], 0
        order = sorted(self.backed, key=lambda i: (len(self.free_of(i)), i))
        while got < blocks:
            if not order:
                late = not wait_ms and self.library.random.random() < self.library.late
                before = set(self.backed)
                if late or not self.back_one():
                    break
                order = sorted(self.backed - before)
            free = self.free_of(order.pop(0))
            if free and len(taken) < 60:
                taken.extend(_runs(free))
                got += len(free)
                self.live.update(free)
        return (OK if got >= blocks else SHORT), taken

    def release(self, ranges):
        if self.broken or not self.alive:
            return INVALID
        given = [b for start, count in ranges for b in range(start, start + count)]
        if len(set(given)) != len(given) or not set(given) <= self.live - self.pinned:
            return INVALID
        self.releases += 1
        self.live.difference_update(given)
        # What is warm goes at once: the strictest case for what the adapter relies on.
        for index in list(self.backed):
            start, count = self.ranges[index]
            if not self.live & set(range(start, start + count)):
                self.backed.discard(index)
        return OK

    def expect(self, blocks):
        self.expected = blocks
        return OK

    def in_use(self, blocks):
        self.told_in_use = blocks
        return OK

    def evicted(self, blocks):
        self.told_evicted += blocks
        return OK

    def pressure(self):
        """As long as the pool has less than this cache holds, others are entitled to the rest."""
        return max(0, self.backed_blocks() - self.library.pool_blocks)

    def wait_pressure(self, wait_ms):
        end = time.monotonic() + wait_ms / 1000
        while self.alive:
            if self.pressure():
                return OK
            if time.monotonic() >= end:
                return SHORT
            time.sleep(0.005)
        return INVALID


def _runs(numbers):
    runs = []
    for number in numbers:
        if runs and runs[-1][0] + runs[-1][1] == number:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number, 1))
    return runs
