"""Bells: 32-bit counters in memory that several processes map, raised when something was written."""

import ctypes
import errno
import time

_FUTEX, _FUTEX_WAIT, _FUTEX_WAKE = 202, 0, 1

_libc = ctypes.CDLL(None, use_errno=True)


class _Time(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64)]


def wake(address):
    """All who wait for the bell at this address, after it was raised."""
    _libc.syscall(_FUTEX, ctypes.c_void_p(address), _FUTEX_WAKE, 1 << 30, None, None, 0)


def wait(address, seen, seconds):
    """Until the bell is not `seen` any more, at most so long."""
    limit = _Time(int(seconds), int(seconds % 1 * 1e9))
    if _libc.syscall(_FUTEX, ctypes.c_void_p(address), _FUTEX_WAIT, ctypes.c_uint32(seen),
                     ctypes.byref(limit), None, 0) and (
            ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT)):
        time.sleep(min(seconds, 0.001))
