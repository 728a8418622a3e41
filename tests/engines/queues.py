"""Blocks and free queues by stripes, for their tests."""
import worlds

striped_queue = worlds.package.striped_queue


class Block:
    def __init__(self, number):
        self.block_id = number
        self.block_hash = None
        self.ref_cnt = 0
        self.is_null = False
        self.prev_free_block = self.next_free_block = None


class SlottedBlock:
    __slots__ = ("ref_cnt", "block_id", "is_null", "prev_free_block", "block_hash",
                 "next_free_block", "__weakref__")
    __init__ = Block.__init__


def make(stripes=8, size=10, kind=Block, **more):
    blocks = [kind(i) for i in range(stripes * size)]
    worlds.free_queue()(blocks)  # as the engine's own queue leaves them
    queue = striped_queue.StripedQueue(
        blocks, [(i * size, size) for i in range(stripes)],
        more.pop("before_evicting", lambda count: None), **more)
    queue.blocks = blocks
    return queue


def condemned(queue):
    return {stripe for stripe in range(queue.stripes) if queue.is_condemned(stripe)}


def numbers(blocks):
    return [block.block_id for block in blocks]
