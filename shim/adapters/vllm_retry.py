"""Growing on demand: what KVCacheManager finds no room for is tried again with more blocks.

It stands in each manager from the start, whoever the scheduler is: only vLLM's own says before a
step what it will need, and takes it away for a step that cannot run out of blocks.
"""

import functools

from _kvcached import seams

# The questions of KVCacheManager that may be answered no for want of memory. Where a release has
# the second, it asks it of the whole request before the first.
RETRIED = ("allocate_slots", "can_fit_full_sequence")


def kv_cache_manager(module):
    def init(original):
        def wrapper(self, *args, **kwargs):
            original(self, *args, **kwargs)
            balloon = getattr(getattr(self, "block_pool", None), "_kvcached", None)
            if balloon is not None:
                install(self, balloon)
                balloon.on_demand = True
        return wrapper

    seams.check(module.KVCacheManager, "allocate_slots", ("self", "request", "num_new_tokens"))
    if hasattr(module.KVCacheManager, "can_fit_full_sequence"):
        seams.check(module.KVCacheManager, "can_fit_full_sequence", ("self", "request"))
    seams.wrap(module.KVCacheManager, {"__init__": (("self",), init)})


def install(manager, balloon):
    for name in RETRIED:
        if hasattr(type(manager), name) and name not in manager.__dict__:
            setattr(manager, name, retrying(manager, name, balloon))


def remove(manager):
    for name in RETRIED:
        manager.__dict__.pop(name, None)


def retrying(manager, name, balloon):
    """A method of RETRIED for a step that may run out of blocks: what does not fit yet is tried
    again with more."""
    original = functools.partial(getattr(type(manager), name), manager)

    def wrapper(request, *args, **kwargs):
        result = original(request, *args, **kwargs)
        if (result is None or result is False) and balloon.withheld:
            result = with_room(manager, balloon, functools.partial(
                original, request, *args, **kwargs), kwargs.get("reserved_blocks", 0))
        return result
    return wrapper


def with_room(manager, balloon, attempt, reserved):
    """The result of `attempt`, which was None or False, once there is room for it; else that."""
    coordinator = manager.coordinator
    ask = coordinator.get_num_blocks_to_allocate
    needs = []

    def asking(*args, **kwargs):
        needs.append(ask(*args, **kwargs))
        return needs[-1]

    # The engine asks for the whole request first and then for this step's part, so a second attempt
    # may find another need.
    for _ in range(2):
        coordinator.get_num_blocks_to_allocate = asking
        try:
            result = attempt()
        finally:
            del coordinator.get_num_blocks_to_allocate
        if not (result is None or result is False) or not needs:
            return result
        extra = getattr(manager, "watermark_blocks", 0) + reserved
        if not balloon.make_room(needs[-1], extra):
            return result
    return attempt()
