"""vLLM's queue of free blocks, ordered by the stripes that back them.

It takes the place of BlockPool.free_block_queue, so that it alone decides which block goes next,
whoever moves it. Only blocks that have memory are in it. In which order they go, and what stripes
hold, is in free_blocks.hpp; its calls are the library's, for the scheduler makes them for every
block, and there this language costs several times what a warm loop of it shows.
"""

import sys
import types

from _kvcached import FreeBlocks


class StripedQueue(FreeBlocks):
    """`blocks`: all blocks of the pool by number. `stripes`: (first, count) of each, in order.
    `before_evicting(count)` is called when `count` blocks are taken and some of them are not there,
    or would be cached ones of which no more than `ask_below` are left: it may add stripes.

    size, stripes     how many blocks and stripes there are
    num_free_blocks   those to be had
    fresh             of these, whose contents nobody knows
    aside             free ones of condemned stripes
    condemned         stripes that are
    refused           blocks that were freed without being in use
    """

    def __init__(self, blocks, stripes, before_evicting, ask_below=sys.maxsize):
        self.before_evicting = before_evicting
        # The attribute behind vLLM's property, where there is one.
        known_by = "_block_hash" if hasattr(blocks[0], "_block_hash") else "block_hash"
        self.begin(blocks, [count for _, count in stripes], known_by, ask_below,
                   bare(type(blocks[0]), "block_id", known_by))
        for block in blocks:  # the links are not used
            block.prev_free_block = block.next_free_block = None


def bare(kind, *names):
    """An instance of `kind` with an object of its own in each of these slots: by it is found where
    they lie. None where they are not slots, or may be read through code of its own."""
    if kind.__getattribute__ is not object.__getattribute__:
        return None
    try:
        made = object.__new__(kind)
        for name in names:
            found = next(vars(base)[name] for base in kind.__mro__ if name in vars(base))
            if type(found) is not types.MemberDescriptorType:
                return None
            found.__set__(made, object())
    except (AttributeError, StopIteration, TypeError):
        return None
    return made
