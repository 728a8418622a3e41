"""The longest request that an engine accepts follows what its tenant can hold, while it runs.

A request that never fits would wait for ever, and all behind it. vLLM's front ends (the process of
`LLM`, or each API server) check what comes against ModelConfig.max_model_len every time, and answer
400; what fits is known to the library in the engine's process. They share a file of a word for each
engine. Its name goes with the engine's configuration to the processes that this is given to; API
servers, which make one of their own, inherit it from the process that starts both.

A request that was accepted before stays; one that is in line and does not fit any more waits until
it does.
"""

import atexit
import ctypes
import inspect
import logging
import mmap
import multiprocessing
import os
import threading
import weakref

from _kvcached import bell, seams, shared_file

NAME = "_kvcached_lengths"  # in the configuration of an engine: the file's path
INHERITED = "KVCACHED_LENGTHS"  # "PID:path": for the API servers that this process starts
ENGINES = 64  # data-parallel ones that can have a word; the others tell nothing
WAIT = 60.0  # seconds, after which a front end looks whether anybody needs it

# Words of the file. What an engine tells is one more than the length; 0: nothing yet.
_BELL, _LENGTHS = 0, 1
_WORDS = _LENGTHS + ENGINES

log = logging.getLogger("kvcached")
mutex = threading.Lock()


class File:
    def __init__(self, descriptor):
        self._map = mmap.mmap(descriptor, 8 * _WORDS)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.words = memoryview(self._map).cast("Q")

    def tell(self, engine, length):
        words = self.words
        if words[_LENGTHS + engine] != length + 1:
            words[_LENGTHS + engine] = length + 1
            words[_BELL] = words[_BELL] + 1 & 0xFFFFFFFF
            bell.wake(self._address + 8 * _BELL)

    def least(self):
        """Of what engines tell, below 0 where none has told anything; and the bell before."""
        seen = self.words[_BELL]
        return min(filter(None, self.words[_LENGTHS:]), default=0) - 1, seen

    def wait(self, seen):
        bell.wait(self._address + 8 * _BELL, seen, WAIT)


files = {}  # by path


def open_file(path):
    """Raises OSError."""
    with mutex:
        if path not in files:
            descriptor, size = shared_file.open_own(path)
            if size != 8 * _WORDS:
                raise OSError("%s is no file of lengths" % path)
            files[path] = File(descriptor)
        return files[path]


def create_file():
    """Its path. Raises OSError."""
    descriptor, path = shared_file.create("lengths-", 8 * _WORDS)
    atexit.register(_end, os.getpid(), path)
    with mutex:
        files[path] = File(descriptor)
    return path


def _end(process, path):
    if os.getpid() == process:
        shared_file.unlink(path)


def path_of(config):
    """The file of the engine with this configuration, made if there is none yet. Raises OSError."""
    path = vars(config).get(NAME) or inherited() or create_file()
    vars(config)[NAME] = path
    return path


def inherited():
    """What the process that started this one left for it; whoever starts a program of its own is
    not meant."""
    pid, _, path = os.environ.get(INHERITED, "").partition(":")
    return path if multiprocessing.parent_process() and pid == str(os.getppid()) else ""


# ---- Front ends ----------------------------------------------------------------------------------


class Bound:
    """ModelConfig.max_model_len, kept at what engines tell."""

    def __init__(self, config):
        self.config = weakref.ref(config)
        self.full = self.told = config.max_model_len

    def follow(self, least):
        """False when the configuration is gone. `least` below 0: nothing was told."""
        config = self.config()
        if config is None:
            return False
        if config.max_model_len != self.told:  # the engine's own doing, while it starts
            self.full = config.max_model_len
        length = self.full if least < 0 else min(self.full, max(least, 1))
        if length != self.told:
            log.warning("kvcached: requests of up to %d of %d tokens are accepted", length, self.full)
        self.told = config.max_model_len = length
        return True


def _follow(shared, bound):
    try:
        while True:
            least, seen = shared.least()
            if not bound.follow(least):
                return
            shared.wait(seen)
    except Exception as error:
        log.warning("kvcached: %r; the longest request that is accepted stays as it is", error)


def input_processor(module):
    def init(original):
        def wrapper(self, vllm_config, *args, **kwargs):
            original(self, vllm_config, *args, **kwargs)
            try:
                bound = Bound(vllm_config.model_config)
                shared = open_file(path_of(vllm_config))
                threading.Thread(target=_follow, args=(shared, bound), name="kvcached-length",
                                 daemon=True).start()
            except Exception as error:
                log.info("kvcached: %r; requests too long for the limit wait", error)
        return wrapper

    seams.wrap(module.InputProcessor, {"__init__": (("self", "vllm_config"), init)})


def engine_utils(module):
    """Engines may be started by a process that is no front end itself."""
    def init(original):
        signature = inspect.signature(original)

        def wrapper(self, *args, **kwargs):
            try:
                path = path_of(signature.bind(self, *args, **kwargs).arguments["vllm_config"])
                os.environ[INHERITED] = "%d:%s" % (os.getpid(), path)
            except Exception as error:
                log.info("kvcached: %r; requests too long for the limit wait", error)
            return original(self, *args, **kwargs)
        return wrapper

    manager = module.CoreEngineProcManager
    if "vllm_config" not in inspect.signature(manager.__init__).parameters:
        raise seams.Unknown("CoreEngineProcManager without vllm_config")
    seams.wrap(manager, {"__init__": (("self",), init)})


# ---- The engine ----------------------------------------------------------------------------------


def teller(allocation):
    """A function, for now and then, which tells the front ends what the library says that fits. None
    where there is nobody to tell."""
    parallel = allocation.config.parallel_config
    # The rank is 0 in each of several engines that need nothing of each other.
    engine = getattr(parallel, "data_parallel_index", None)
    if engine is None:
        engine = getattr(parallel, "data_parallel_rank", 0)
    path = vars(allocation.config).get(NAME)
    if not path or not 0 <= engine < ENGINES:
        return None
    try:
        shared = open_file(path)
    except OSError as error:
        log.info("kvcached: %r; requests too long for the limit wait", error)
        return None
    return lambda: shared.tell(engine, allocation.library.max_seq_len())
