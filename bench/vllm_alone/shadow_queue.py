"""A queue of free blocks as stock has it, that is called as ours is and hands out blocks of its own:
what those calls would have cost."""
import time


class ShadowQueue:
    def __init__(self, queue, block, count):
        """Of the classes `queue` and `block`, with so many blocks."""
        self.queue = queue([block(number) for number in range(count)])
        self.taken = {}  # by the number of the block that ours gave
        self.ns = 0

    def take(self, blocks):
        """Ours gave these."""
        begun = time.perf_counter_ns()
        got = self.queue.popleft_n(len(blocks))
        self.ns += time.perf_counter_ns() - begun
        self.taken.update(zip((block.block_id for block in blocks), got))

    def free(self, blocks):
        mine = [self.taken.pop(block.block_id) for block in blocks if block.block_id in self.taken]
        begun = time.perf_counter_ns()
        self.queue.append_n(mine)
        self.ns += time.perf_counter_ns() - begun

    def spent(self):
        """Nanoseconds since the last call."""
        ns, self.ns = self.ns, 0
        return ns
