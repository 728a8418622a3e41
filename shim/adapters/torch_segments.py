"""torch's expandable segments: memory that torch maps piece by piece by itself, in ranges that it
reserves, so that no allocation of the cache's size is ever made."""

import contextlib
import logging
import os

# As torch reads them; the first that is set counts.
SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
NAME = "expandable_segments"

log = logging.getLogger("kvcached")


@contextlib.contextmanager
def plain(torch):
    """Within it, torch makes new segments by plain allocations, whatever its settings say."""
    settings = next((os.environ[name] for name in SETTINGS if os.environ.get(name)), "")
    change = getattr(getattr(torch.cuda, "memory", None), "_set_allocator_settings", None)
    wanted = any(part.replace(" ", "").lower() == NAME + ":true" for part in settings.split(","))
    if wanted:
        wanted = _set(change, NAME + ":False")
    try:
        yield
    finally:
        if wanted:
            _set(change, settings)


def _set(change, settings):
    """Never raises: an engine that torch takes elsewhere runs as stock."""
    try:
        change(settings)
        return True
    except Exception as error:
        log.warning("kvcached: torch's allocator, %s: %r", settings, error)
        return False
