"""An engine without requests sleeps in its input queue and would keep what it has: what it did not
hand back at once, and what only its prefix cache knows, while others in the pool wait for memory. A
thread wakes it for that; the engine's own thread, the only one that moves blocks, lets go.
"""

import logging
import sys
import threading
import time
import weakref

from _kvcached import client, seams

LOOK_MS = 1000  # to see whether the engine has become idle
AGAIN_MS = 120  # after a wake that left something to hand back: more than the pause in between
PAUSE = 0.05  # seconds from one wake to the next while others wait

log = logging.getLogger("kvcached")


def wrap(module, settle):
    """Makes an engine with an input queue call `settle(engine)` when it is woken without a request.
    Answers the message that wakes it; None where a release has no such thing."""
    try:
        wake = module.EngineCoreRequestType.WAKEUP

        def handle_client_request(original):
            def wrapper(self, request_type, *args, **kwargs):
                result = original(self, request_type, *args, **kwargs)
                if request_type == wake:
                    settle(self)
                return result
            return wrapper

        seams.wrap(module.EngineCoreProc, {
            "_handle_client_request": (("self", "request_type"), handle_client_request),
        })
        return wake
    except (AttributeError, seams.Unknown) as error:
        log.info("kvcached: %s; what an idle engine has stays longer", error)
        return None


def publish(scheduler):
    """What the next step would tell of blocks that were dropped from the prefix cache: it may be
    long in coming. Never raises."""
    try:
        manager = scheduler.kv_cache_manager
        if getattr(manager.block_pool, "kv_event_queue", None):
            batch = sys.modules["vllm.v1.core.sched.scheduler"].KVEventBatch
            scheduler.kv_event_publisher.publish(
                batch(ts=time.time(), events=manager.take_events()))
    except Exception as error:
        log.info("kvcached: %r; what the prefix cache dropped is told later, if at all", error)


def watch(engine, balloon, wake, tell):
    """Starts the thread, for an engine that has an input queue. `tell`: called about once a second,
    or None."""
    if getattr(engine, "input_queue", None) is not None and balloon.cache is not None:
        balloon.woken = True  # before the thread, which may end at once and take it back
        threading.Thread(target=_watch, args=(weakref.ref(engine), balloon, wake, tell),
                         name="kvcached-idle", daemon=True).start()


def _watch(engine, balloon, wake, tell):
    try:
        wait_ms, told = LOOK_MS, 0.0
        while engine() is not None and not balloon.pinning:
            if tell is not None and time.monotonic() - told >= LOOK_MS / 1000:
                told = time.monotonic()
                tell()
            code = balloon.cache.wait_pressure(wait_ms)
            if code not in (client.OK, client.SHORT):
                break
            wait_ms = LOOK_MS
            if code == client.OK:
                _wake(engine(), wake)
                time.sleep(PAUSE)
            elif balloon.crowded() and _wake(engine(), wake):
                wait_ms = AGAIN_MS
    except Exception as error:
        log.warning("kvcached: %r; what an idle engine has stays longer", error)
    balloon.woken = False


def _wake(engine, wake):
    """False for a busy one: it comes by itself, after its step."""
    if engine is None or engine.scheduler.has_requests():
        return False
    engine.input_queue.put_nowait((wake, None))
    return True
