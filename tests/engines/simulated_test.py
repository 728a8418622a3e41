"""The vLLM adapter from end to end without a GPU: preload, library, pool and simulated driver."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("KVCACHED_BUILD", "build")).resolve()
MIB = 1 << 20


class Simulated(unittest.TestCase):
    maxDiff = None

    def run_engine(self, **settings):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("gpu", "pool"):
                os.mkdir(os.path.join(folder, name))
            env = dict({k: v for k, v in os.environ.items() if not k.startswith("KVCACHED_")},
                       KVCACHED_BUILD=str(BUILD), KVCACHED_DIR=folder + "/pool",
                       SIM_GPU_DIR=folder + "/gpu", SIM_GPU_MEMORY="512MiB",
                       LD_LIBRARY_PATH=str(BUILD / "sim"),
                       LD_PRELOAD=str(BUILD / "libkvcached.so"), **settings)
            done = subprocess.run([sys.executable, "-B", str(HERE / "simulated_engine.py")],
                                  env=env, capture_output=True, text=True, timeout=300)
        return done

    def result(self, **settings):
        done = self.run_engine(**settings)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return json.loads(done.stdout)

    def test_memory_follows_the_load(self):
        found = self.result()
        self.assertEqual(found["finished"], 120)
        self.assertEqual(found["shown"], "elastic: 3 segments, 4096 blocks")
        # Three times as much address space as the GPU has: it could not start without the library.
        self.assertGreater(found["full"], 700 * MIB)
        self.assertLessEqual(found["idle"], 64 * MIB)
        self.assertGreater(min(found["peaks"]), 80 * MIB)
        self.assertLessEqual(max(found["after"]), 64 * MIB)

    def test_a_limit_makes_requests_wait(self):
        found = self.result(KVCACHED_MAX="60MiB")
        self.assertEqual(found["finished"], 120)
        self.assertLessEqual(max(found["peaks"] + found["after"]), 60 * MIB)

    def test_switched_off_the_engine_is_alone_with_the_driver(self):
        done = self.run_engine(KVCACHED_DISABLE="1")
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue(done.stderr.endswith("AssertionError: 2\n"), done.stderr)  # out of memory


if __name__ == "__main__":
    unittest.main()
