"""The longest request that front ends accept is what the engine's tenant can hold."""
import gc
import importlib
import multiprocessing
import os
import pathlib
import pickle
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

# Another process: says what the file has, or tells something.
OTHER = """
import os, sys, types
sys.path.insert(0, %r)
import worlds
length = worlds.package.vllm_length
if sys.argv[1] == "killed":
    length.create_file()
    os.kill(os.getpid(), 9)
elif sys.argv[1] == "make":
    print(length.create_file())
elif sys.argv[1] == "inherited":
    print(length.inherited())
elif sys.argv[2] == "least":
    print(length.open_file(sys.argv[1]).least()[0])
else:
    length.open_file(sys.argv[1]).tell(int(sys.argv[2]), int(sys.argv[3]))
""" % str(pathlib.Path(__file__).resolve().parent)


def other(*arguments, code=0):
    done = subprocess.run([sys.executable, "-B", "-c", OTHER, *map(str, arguments)],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout.strip()


def api_server(queue):
    queue.put(length.inherited())


def until(question):
    end = time.monotonic() + 20
    while not question() and time.monotonic() < end:
        time.sleep(0.005)
    return question()


class Configuration:
    """Of an engine, or of its model."""

    def __init__(self, **values):
        self.__dict__.update(values)


def configuration(full=4096):
    return Configuration(model_config=Configuration(max_model_len=full))


def fresh_module():
    """A front end's modules, as an engine has them."""
    class InputProcessor:
        def __init__(self, vllm_config, renderer=None):
            self.model_config = vllm_config.model_config

    class CoreEngineProcManager:
        def __init__(self, count, vllm_config):
            self.given = pickle.loads(pickle.dumps(vllm_config))

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
        patch = mock.patch.dict(os.environ, {"KVCACHED_DIR": folder.name})
        patch.start()
        self.addCleanup(patch.stop)

    def front(self, config=None):
        """A front end, and what it follows."""
        config = config or configuration()
        fresh_module().InputProcessor(config)
        self.path = vars(config).get(length.NAME)
        return config.model_config


class FrontEnd(Lengths):
    def test_it_follows_down_and_up(self):
        config = self.front()
        for told, seen in ((1000, 1000), (16, 16), (9999, 4096), (0, 1)):
            other(self.path, 0, told)
            self.assertTrue(until(lambda: config.max_model_len == seen), config.max_model_len)

    def test_of_several_engines_the_shortest_counts(self):
        config = self.front()
        other(self.path, 0, 3000)
        other(self.path, 1, 2000)
        self.assertTrue(until(lambda: config.max_model_len == 2000))
        other(self.path, 1, 4096)
        self.assertTrue(until(lambda: config.max_model_len == 3000))

    def test_what_the_engine_shortened_itself_stays_the_most(self):
        config = self.front()
        config.max_model_len = 3000  # what the engine said when it was ready
        other(self.path, 0, 2000)
        self.assertTrue(until(lambda: config.max_model_len == 2000))
        other(self.path, 0, 4096)
        self.assertTrue(until(lambda: config.max_model_len == 3000))

    def test_a_late_one_follows_at_once(self):
        config = configuration()
        first = self.front(config)
        other(self.path, 0, 77)
        self.assertTrue(until(lambda: first.max_model_len == 77))
        first.max_model_len = 4096
        late = pickle.loads(pickle.dumps(config))
        self.assertTrue(until(lambda: self.front(late).max_model_len == 77))

    def test_engines_that_one_process_starts_do_not_meet(self):
        first = self.front()
        theirs = self.path
        second = self.front()
        self.assertNotEqual(self.path, theirs)
        other(self.path, 0, 50)
        self.assertTrue(until(lambda: second.max_model_len == 50))
        self.assertEqual(first.max_model_len, 4096)

    def test_nobody_waits_for_one_that_is_gone(self):
        before = set(threading.enumerate())
        config = self.front()
        thread, = set(threading.enumerate()) - before
        del config
        gc.collect()
        self.assertTrue(thread.is_alive())
        other(self.path, 0, 5)
        self.assertTrue(until(lambda: not thread.is_alive()))

    def test_who_starts_engines_tells_them_and_its_own_servers_the_file(self):
        given = fresh_module().CoreEngineProcManager(1, vllm_config=configuration()).given
        path = vars(given)[length.NAME]
        self.assertEqual(other(path, "least"), "-1")
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        server = context.Process(target=api_server, args=(queue,))
        server.start()
        self.assertEqual(queue.get(timeout=60), path)
        server.join()
        self.assertEqual(other("inherited"), "", "another program")
        self.assertEqual(length.inherited(), "", "nor itself")

    def test_the_first_to_know_the_configuration_makes_the_file(self):
        config = configuration()
        self.front(config)
        given = fresh_module().CoreEngineProcManager(1, config).given
        self.assertEqual(vars(given)[length.NAME], self.path)

    def test_without_a_folder_all_stays_as_it_is(self):
        os.environ["KVCACHED_DIR"] = "/dev/null/none"
        self.assertEqual(self.front().max_model_len, 4096)
        given = fresh_module().CoreEngineProcManager(1, configuration()).given
        self.assertNotIn(length.NAME, vars(given))

    def test_what_is_no_such_file_is_left_alone(self):
        path = self.folder / "other"
        path.write_bytes(b"precious")
        config = configuration()
        vars(config)[length.NAME] = str(path)
        self.assertEqual(self.front(config).max_model_len, 4096)
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
        other(self.path, 0, 100)
        self.assertTrue(until(lambda: checker.model_config.max_model_len == 100))
        for refused in (100, 500):
            with self.assertRaisesRegex(Exception, "maximum model length of 100"):
                checker._validate_prompt_len(refused, "decoder")
        checker._validate_prompt_len(99, "decoder")


class Engine(Lengths):
    def setUp(self):
        super().setUp()
        patch = mock.patch.object(idle, "LOOK_MS", 20)
        patch.start()
        self.addCleanup(patch.stop)

    def make(self, path, **settings):
        config = worlds.vllm_engine.config

        def with_path(*args, **kwargs):
            made = config(*args, **kwargs)
            vars(made).update({length.NAME: path} if path else {})
            return made
        library = worlds.Library()
        with mock.patch.object(worlds.vllm_engine, "config", with_path):
            engine = worlds.Engine(library, queued=True, **settings)
        self.addCleanup(lambda: engine.cache.destroy())
        return library, engine

    def test_it_tells_what_the_library_says(self):
        path = length.create_file()
        library, engine = self.make(path)

        def told():
            return length.open_file(path).least()[0]
        for longest in (512, 96, 512):
            library.longest = longest
            self.assertTrue(until(lambda: told() == longest), told())
        engine.check()

    def test_engines_of_rank_0_tell_by_their_index(self):
        loose, path = worlds.vllm_engine.Loose, length.create_file()

        def tell(longest, **parallel):
            config = loose(parallel_config=loose(data_parallel_rank=0, **parallel))
            vars(config)[length.NAME] = path
            length.teller(loose(config=config, library=loose(max_seq_len=lambda: longest)))()
            return length.open_file(path).least()[0]
        self.assertEqual(tell(100, data_parallel_index=0), 100)
        self.assertEqual(tell(4096, data_parallel_index=1), 100, "the shortest counts")
        self.assertEqual(tell(2000), 2000, "without an index it is the first")

    def test_with_nobody_to_tell_it_tells_nothing(self):
        self.make(None)
        self.assertEqual(list(self.folder.glob("lengths-*")), [])


if __name__ == "__main__":
    unittest.main()
