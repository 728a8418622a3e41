"""The longest request that front ends accept is what the engine's tenant can hold."""
import gc
import importlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
import unittest
from unittest import mock

import worlds

length = worlds.package.vllm_length
idle = worlds.package.vllm_idle

# Another process of the same engine: says what the file has, or tells something.
OTHER = """
import os, sys
sys.path.insert(0, %r)
import worlds
length = worlds.package.vllm_length
if sys.argv[1] == "least":
    print(length.the_file().least()[0])
elif sys.argv[1] == "killed":
    length.the_file()
    os.kill(os.getpid(), 9)
elif sys.argv[1] == "make":
    length.the_file()
    print(os.environ[length.PATH])
else:
    length.the_file().tell(int(sys.argv[1]), int(sys.argv[2]))
""" % str(pathlib.Path(__file__).resolve().parent)


def other(*arguments, code=0):
    done = subprocess.run([sys.executable, "-B", "-c", OTHER, *map(str, arguments)],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout.strip()


def until(question):
    end = time.monotonic() + 20
    while not question() and time.monotonic() < end:
        time.sleep(0.005)
    return question()


class Configuration:
    def __init__(self, max_model_len):
        self.max_model_len = max_model_len


def fresh_module():
    """A front end's modules, as an engine has them."""
    class InputProcessor:
        def __init__(self, vllm_config, renderer=None):
            self.model_config = vllm_config.model_config

    class CoreEngineProcManager:
        def __init__(self, count):
            self.path = os.environ.get(length.PATH)

    module = types.SimpleNamespace(InputProcessor=InputProcessor,
                                   CoreEngineProcManager=CoreEngineProcManager)
    length.input_processor(module)
    length.engine_utils(module)
    return module


class Lengths(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        patches = (mock.patch.dict(os.environ, {"KVCACHED_DIR": folder.name}),
                   mock.patch.object(length, "file", None))
        for patch in patches:
            patch.start()
            self.addCleanup(patch.stop)
        os.environ.pop(length.PATH, None)

    def front(self, full=4096):
        config = Configuration(full)
        fresh_module().InputProcessor(types.SimpleNamespace(model_config=config))
        return config


class FrontEnd(Lengths):
    def test_it_follows_down_and_up(self):
        config = self.front()
        for told, seen in ((1000, 1000), (16, 16), (9999, 4096), (0, 1)):
            other(0, told)
            self.assertTrue(until(lambda: config.max_model_len == seen), config.max_model_len)

    def test_of_several_engines_the_shortest_counts(self):
        config = self.front()
        other(0, 3000)
        other(1, 2000)
        self.assertTrue(until(lambda: config.max_model_len == 2000))
        other(1, 4096)
        self.assertTrue(until(lambda: config.max_model_len == 3000))

    def test_what_the_engine_shortened_itself_stays_the_most(self):
        config = self.front()
        config.max_model_len = 3000  # what the engine said when it was ready
        other(0, 2000)
        self.assertTrue(until(lambda: config.max_model_len == 2000))
        other(0, 4096)
        self.assertTrue(until(lambda: config.max_model_len == 3000))

    def test_all_front_ends_follow_and_a_late_one_at_once(self):
        first = self.front()
        other(0, 77)
        late = self.front()
        self.assertTrue(until(lambda: first.max_model_len == late.max_model_len == 77))

    def test_nobody_waits_for_one_that_is_gone(self):
        before = set(threading.enumerate())
        config = self.front()
        thread, = set(threading.enumerate()) - before
        del config
        gc.collect()
        self.assertTrue(thread.is_alive())
        other(0, 5)
        self.assertTrue(until(lambda: not thread.is_alive()))

    def test_who_starts_engines_lets_them_know_the_file(self):
        path = fresh_module().CoreEngineProcManager(1).path
        self.assertTrue(os.path.exists(path))
        self.assertEqual(other("least"), "-1", "it is inherited, and nothing is told")

    def test_without_a_folder_all_stays_as_it_is(self):
        os.environ["KVCACHED_DIR"] = "/dev/null/none"
        self.assertEqual(self.front().max_model_len, 4096)
        self.assertIsNone(fresh_module().CoreEngineProcManager(1).path)

    def test_what_is_no_such_file_is_left_alone(self):
        path = self.folder / "other"
        path.write_bytes(b"precious")
        os.environ[length.PATH] = str(path)
        self.assertEqual(self.front().max_model_len, 4096)
        self.assertEqual(path.read_bytes(), b"precious")

    def test_the_file_goes_with_its_maker_however_that_ends(self):
        self.assertFalse(os.path.exists(other("make")))
        other("killed", code=-signal.SIGKILL)
        left, = self.folder.glob("lengths-*")
        os.utime(left, (0, 0))
        kept = self.folder / other("make")
        self.assertEqual(list(self.folder.glob("lengths-*")), [])
        self.assertFalse(kept.exists())

    @unittest.skipUnless(worlds.SITE, "needs vLLM's sources")
    def test_the_engine_s_own_check_refuses(self):
        processor = importlib.import_module("vllm.v1.engine.input_processor").InputProcessor
        checker = processor.__new__(processor)
        checker.__dict__.update(model_config=self.front(), skip_prompt_length_check=False,
                                supports_mm_inputs=False)
        checker.model_config.runner_type = "generate"
        checker._validate_prompt_len(500, "decoder")
        other(0, 100)
        self.assertTrue(until(lambda: checker.model_config.max_model_len == 100))
        for refused in (100, 500):
            with self.assertRaisesRegex(ValueError, "maximum model.length of 100"):
                checker._validate_prompt_len(refused, "decoder")
        checker._validate_prompt_len(99, "decoder")


class Engine(Lengths):
    def make(self, **settings):
        library = worlds.Library()
        with mock.patch.object(idle, "LOOK_MS", 20):
            engine = worlds.Engine(library, queued=True, **settings)
        self.addCleanup(lambda: engine.cache.destroy())
        return library, engine

    def told(self):
        return length.the_file().least()[0]

    def test_it_tells_what_the_library_says(self):
        length.the_file()
        patch = mock.patch.object(idle, "LOOK_MS", 20)
        patch.start()
        self.addCleanup(patch.stop)
        library, engine = self.make()
        for longest in (512, 96, 512):
            library.longest = longest
            self.assertTrue(until(lambda: self.told() == longest), self.told())
        engine.check()

    def test_with_nobody_to_tell_it_tells_nothing(self):
        self.make()
        self.assertEqual(list(self.folder.glob("lengths-*")), [])


if __name__ == "__main__":
    unittest.main()
