"""The calls of kvcached.h for adapters, through ctypes.

Calls that may wait let go of the interpreter's lock. The others keep it: an engine's other Python
threads would take it, and the scheduler's would wait for milliseconds to get it back.

Nothing here raises because the library refuses: calls answer the library's result code.
"""

import ctypes
import functools
import operator
from ctypes import (POINTER, Structure, addressof, byref, c_char_p, c_int, c_int64, c_size_t,
                    c_uint, c_uint32, c_uint64, c_void_p, sizeof)

OK = 0
INVALID = -1
NOT_ELASTIC = -2
SHORT = -3
OFF = -4
LOST = -5
FAILED = -6
BUSY = -7

WHOLE_STRIPES = 1
UNTIL_REFUSED = 2

_RANGES = 64  # ranges that one acquire can answer
_value = operator.attrgetter("value")


class _Segment(Structure):
    _fields_ = [("base", c_uint64), ("stride", c_uint64), ("block_bytes", c_uint64)]


class _Range(Structure):
    _fields_ = [("first", c_uint64), ("count", c_uint64)]


class _Geometry(Structure):
    _fields_ = [("struct_size", c_size_t), ("segments", POINTER(_Segment)),
                ("segment_count", c_size_t), ("blocks", c_uint64), ("pinned", POINTER(_Range)),
                ("pinned_count", c_size_t), ("stripe_bytes", c_uint64)]


class _Model(Structure):
    _fields_ = [("struct_size", c_size_t), ("name", c_char_p), ("layers", c_uint32),
                ("kv_heads", c_uint32), ("head_dim", c_uint32), ("bytes_per_element", c_uint32),
                ("max_seq_len", c_uint32), ("block_tokens", c_uint32),
                ("bytes_per_token", c_uint64)]


class _ModelInfo(Structure):
    _fields_ = [("struct_size", c_size_t), ("bytes_per_token", c_uint64),
                ("capacity_tokens", c_uint64), ("guaranteed_tokens", c_uint64)]


_SIGNATURES = {
    "tag_push": [c_char_p],
    "tag_pop": [],
    "resident": [c_uint64, c_size_t, c_size_t, POINTER(c_size_t)],
    "back_whole": [c_uint64, c_int64],
    "adapter_report": [c_char_p, c_char_p],
    "model_register": [POINTER(_Model), POINTER(_ModelInfo)],
    "model_max_seq_len": [],
    "cache_create": [POINTER(_Geometry), POINTER(c_void_p)],
    "cache_destroy": [c_void_p],
    "cache_acquire": [c_void_p, c_uint64, c_uint, c_int64, POINTER(_Range), POINTER(c_size_t)],
    "cache_acquire_ranges": [c_void_p, POINTER(_Range), c_size_t, c_int64],
    "cache_release": [c_void_p, POINTER(_Range), c_size_t],
    "cache_expect": [c_void_p, c_uint64],
    "cache_in_use": [c_void_p, c_uint64],
    "cache_evicted": [c_void_p, c_uint64],
    "cache_pressure_word": [c_void_p],
    "cache_wait_pressure": [c_void_p, c_int64],
    "cache_stripes": [c_void_p, POINTER(_Range), POINTER(c_size_t)],
}

_RESULTS = {"cache_pressure_word": POINTER(c_uint64), "model_max_seq_len": c_uint32}

# Those that never wait; an acquire without a wait is one more.
_QUICK = {"cache_release", "cache_expect", "cache_in_use", "cache_evicted", "cache_stripes",
          "resident", "tag_push", "tag_pop"}


class Library:
    """The preloaded library. AttributeError when it is not there."""

    def __init__(self):
        waiting, quick = ctypes.CDLL(None), ctypes.PyDLL(None)
        for name, arguments in _SIGNATURES.items():
            self._bind("_" + name, quick if name in _QUICK else waiting, name, arguments)
        self._bind("_cache_take", quick, "cache_acquire", _SIGNATURES["cache_acquire"])

    def _bind(self, attribute, library, name, arguments):
        function = getattr(library, "kvcached_" + name)
        function.argtypes = arguments
        function.restype = _RESULTS.get(name, c_int)
        setattr(self, attribute, function)

    def tag_push(self, tag):
        return self._tag_push(tag.encode())

    def tag_pop(self):
        return self._tag_pop()

    def resident(self, address, size):
        """Result code and the bytes of [address, address + size) that have memory."""
        resident = c_size_t(0)
        return self._resident(address, 0, size, byref(resident)), resident.value

    def back_whole(self, address, wait_ms):
        return self._back_whole(address, wait_ms)

    def report(self, adapter, state):
        return self._adapter_report(adapter.encode(), state.encode())

    def register_model(self, name, layers, kv_heads, head_dim, bytes_per_element, max_seq_len,
                       block_tokens, bytes_per_token):
        """Result code, and the bytes that this tenant can have at most."""
        model = _Model(sizeof(_Model), name.encode(), layers, kv_heads, head_dim,
                       bytes_per_element, max_seq_len, block_tokens, bytes_per_token)
        info = _ModelInfo(sizeof(_ModelInfo))
        code = self._model_register(byref(model), byref(info))
        return code, info.capacity_tokens * info.bytes_per_token

    def max_seq_len(self):
        """Of the registered model, what can be held now. May wait; not for the scheduler's thread."""
        return self._model_max_seq_len()

    def create_cache(self, segments, blocks, pinned):
        """Result code and a Cache. `segments` are (base, stride, block_bytes), `pinned` are
        (first, count)."""
        handle = c_void_p()
        geometry = _Geometry(sizeof(_Geometry), (_Segment * len(segments))(*segments),
                             len(segments), blocks, (_Range * len(pinned))(*pinned), len(pinned),
                             0)
        code = self._cache_create(byref(geometry), byref(handle))
        return code, Cache(self, handle) if code == OK else None


class Cache:
    """One cache of the library. Used by one thread at a time."""

    def __init__(self, library, handle):
        self._library = library
        self._handle = handle
        self._ranges = (_Range * _RANGES)()
        # Blocks that should be released soon, because others are entitled to their memory; and
        # where the library tells them, for who asks after every step.
        word = library._cache_pressure_word(handle).contents
        self.pressure = functools.partial(_value, word)
        self.pressure_word = addressof(word)

    def destroy(self):
        self.pressure, self.pressure_word = int, 0  # the word is the library's
        return self._library._cache_destroy(self._handle)

    def stripes(self):
        """Result code and the (first, count) of every stripe."""
        count = c_size_t(0)
        code = self._library._cache_stripes(self._handle, None, byref(count))
        if code != OK:
            return code, []
        ranges = (_Range * count.value)()
        code = self._library._cache_stripes(self._handle, ranges, byref(count))
        return code, [(r.first, r.count) for r in ranges[:count.value]]

    def acquire(self, blocks, wait_ms):
        """Result code and the (first, count) that are allocatable now: whole stripes. Waits while
        they are being mapped, not for a pool that refuses. Some may have come with SHORT too."""
        count = c_size_t(_RANGES)
        call = self._library._cache_acquire if wait_ms > 0 else self._library._cache_take
        code = call(self._handle, blocks, WHOLE_STRIPES | UNTIL_REFUSED, wait_ms, self._ranges,
                    byref(count))
        if code not in (OK, SHORT):
            return code, []
        return code, [(r.first, r.count) for r in self._ranges[:count.value]]

    def acquire_ranges(self, ranges, wait_ms):
        """Takes exactly these blocks, all or none."""
        return self._library._cache_acquire_ranges(self._handle, (_Range * len(ranges))(*ranges),
                                                   len(ranges), wait_ms)

    def release(self, ranges):
        return self._library._cache_release(self._handle, (_Range * len(ranges))(*ranges),
                                            len(ranges))

    def expect(self, blocks):
        return self._library._cache_expect(self._handle, blocks)

    def in_use(self, blocks):
        return self._library._cache_in_use(self._handle, blocks)

    def evicted(self, blocks):
        return self._library._cache_evicted(self._handle, blocks)

    def wait_pressure(self, wait_ms):
        """Until there is pressure: OK. By a thread of its own."""
        return self._library._cache_wait_pressure(self._handle, wait_ms)
