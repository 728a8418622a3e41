"""An engine without requests sleeps in its input queue and would keep what only its prefix cache
knows, while others in the pool wait for memory. A thread waits for that moment and wakes the
engine; its own thread, the only one that moves blocks, lets go.
"""

import logging
import threading
import time
import weakref

from _kvcached import client, seams

WAIT_MS = 60000
PAUSE = 0.05  # seconds from one wake to the next

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
        log.info("kvcached: %s; cached prefixes of an idle engine stay", error)
        return None


def watch(engine, balloon, wake):
    """Starts the thread, for an engine that has an input queue."""
    if getattr(engine, "input_queue", None) is not None and balloon.cache is not None:
        threading.Thread(target=_watch, args=(weakref.ref(engine), balloon, wake),
                         name="kvcached-idle", daemon=True).start()


def _watch(engine, balloon, wake):
    try:
        while engine() is not None and not balloon.pinning:
            code = balloon.cache.wait_pressure(WAIT_MS)
            if code == client.OK:
                _wake(engine(), wake)
                time.sleep(PAUSE)
            elif code != client.SHORT:
                return
    except Exception as error:
        log.warning("kvcached: %r; cached prefixes of an idle engine stay", error)


def _wake(engine, wake):
    """A busy engine comes by itself, after its step."""
    if engine is not None and not engine.scheduler.has_requests():
        engine.input_queue.put_nowait((wake, None))
