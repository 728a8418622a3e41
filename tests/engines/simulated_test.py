"""The vLLM adapter from end to end without a GPU: preload, library, pool and simulated driver."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("KVCACHED_BUILD", "build")).resolve()
MIB = 1 << 20


def environment(folder, **settings):
    """Of an engine behind the library, on a simulated GPU and in a pool of its own in `folder`."""
    for name in ("gpu", "pool"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    return dict({k: v for k, v in os.environ.items() if not k.startswith("KVCACHED_")},
                KVCACHED_BUILD=str(BUILD), KVCACHED_DIR=folder + "/pool",
                SIM_GPU_DIR=folder + "/gpu", SIM_GPU_MEMORY="512MiB",
                LD_LIBRARY_PATH=str(BUILD / "sim"),
                LD_PRELOAD=str(BUILD / "libkvcached.so"), **settings)


class Simulated(unittest.TestCase):
    maxDiff = None

    def run_engine(self, program, **settings):
        with tempfile.TemporaryDirectory() as folder:
            env = environment(folder, **settings)
            done = subprocess.run([sys.executable, "-B", str(HERE / program)],
                                  env=env, capture_output=True, text=True, timeout=300)
        return done

    def result(self, program="simulated_engine.py", **settings):
        done = self.run_engine(program, **settings)
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

    def test_bursts_on_a_full_prefix_cache_map_next_to_nothing(self):
        found = self.result("simulated_bursts.py")
        self.assertEqual(found["finished"], 120)
        # By the second one there is room for a burst beside what the prefix cache may keep, but for
        # its last steps.
        self.assertGreater(found["grows"][0], 10)
        self.assertLessEqual(found["grows"][3] - found["grows"][1], 8)

    def test_a_limit_makes_requests_wait(self):
        found = self.result(KVCACHED_MAX="60MiB")
        self.assertEqual(found["finished"], 120)
        self.assertLessEqual(max(found["peaks"] + found["after"]), 60 * MIB)

    def pair(self, folder, role, *arguments, **settings):
        return subprocess.Popen(
            [sys.executable, "-B", str(HERE / "simulated_pair.py"), role, *arguments],
            env=environment(folder, **settings), stdout=subprocess.PIPE, text=True)

    def beside_a_guest(self, role, bursts=1, **settings):
        """What an engine that has filled the pool, and a newcomer beside it, say of themselves."""
        with tempfile.TemporaryDirectory() as folder:
            stop = os.path.join(folder, "stop")
            host = self.pair(folder, role, stop, KVCACHED_NAME=role, KVCACHED_POOL="140MiB",
                             **settings)
            self.assertEqual(host.stdout.readline(), "full\n")
            guest = self.pair(folder, "guest", str(bursts), KVCACHED_NAME="guest")
            of_guest, _ = guest.communicate(timeout=120)
            pathlib.Path(stop).touch()
            of_host, _ = host.communicate(timeout=120)
        return json.loads(of_host), json.loads(of_guest)

    def test_a_full_engine_makes_way_for_a_newcomer(self):
        greedy, guest = self.beside_a_guest("greedy")
        self.assertEqual(guest["finished"], 40)
        self.assertEqual(greedy["wrong"], 0)
        self.assertGreater(greedy["peak"], 110 * MIB)
        # At least the first stripe, which it could not start without.
        self.assertGreaterEqual(guest["peak"], 6 * MIB)
        self.assertLessEqual(greedy["least"], greedy["peak"] - 6 * MIB)

    def test_a_resting_engine_drops_cached_prefixes_for_a_newcomer(self):
        resting, guest = self.beside_a_guest("resting", KVCACHED_PREFIX_CACHE="100%")
        self.assertEqual(guest["finished"], 40)
        self.assertGreater(resting["kept"], 100 * MIB)
        self.assertGreater(resting["wakes"], 0)
        self.assertGreater(guest["peak"], 140 * MIB - resting["kept"] + 20 * MIB)
        self.assertLess(resting["left"], resting["kept"] - 20 * MIB)

    def test_a_busy_engine_lends_what_it_has_no_use_for_though_it_is_within_its_share(self):
        light, guest = self.beside_a_guest("light", 15, KVCACHED_PREFIX_CACHE="100%")
        self.assertEqual(guest["finished"], 600)
        self.assertEqual(light["wrong"], 0)
        self.assertGreater(light["kept"], 100 * MIB)
        # Half of the pool is each one's share.
        self.assertGreater(guest["peak"], 100 * MIB)
        self.assertLess(light["left"], 40 * MIB)

    # Each would have new blocks for what the other caches, again and again.
    def test_engines_that_have_no_use_for_much_leave_each_other_alone(self):
        def grows():
            shown = subprocess.run([str(BUILD / "kvcached"), "stat", "--json"], env=plain, text=True,
                                   capture_output=True, check=True).stdout
            return sum(process["grows"] for pool in json.loads(shown)["pools"]
                       for process in pool["processes"])

        with tempfile.TemporaryDirectory() as folder:
            plain = {k: v for k, v in environment(folder).items() if k != "LD_PRELOAD"}
            stop = os.path.join(folder, "stop")
            engines = [self.pair(folder, "light", stop, "200", KVCACHED_NAME=name,
                                 KVCACHED_POOL="140MiB", KVCACHED_PREFIX_CACHE="100%")
                       for name in ("one", "other")]
            for engine in engines:
                self.assertEqual(engine.stdout.readline(), "full\n")
            time.sleep(1.5)
            before = grows()
            time.sleep(4)
            after = grows()
            pathlib.Path(stop).touch()
            for engine in engines:
                self.assertEqual(json.loads(engine.communicate(timeout=120)[0])["wrong"], 0)
        self.assertGreater(before, 20)
        self.assertLess(after - before, 8)

    def test_while_another_is_guaranteed_most_front_ends_accept_shorter_requests(self):
        def start(**settings):
            engine = subprocess.Popen(
                [sys.executable, "-B", str(HERE / "simulated_length.py")], text=True,
                env=environment(folder, **settings), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self.addCleanup(engine.communicate)
            self.addCleanup(engine.kill)
            return engine

        def accepted():
            return int(engine.stdout.readline())

        with tempfile.TemporaryDirectory() as folder:
            engine = start(KVCACHED_NAME="first", KVCACHED_POOL="100MiB")
            full = accepted()
            other = start(KVCACHED_NAME="guaranteed", KVCACHED_MIN="78MiB")
            self.assertIn(accepted(), range(1, full))
            for ended in (other, engine):
                ended.communicate("")
                self.assertEqual(ended.returncode, 0)
                if ended is other:
                    self.assertEqual(accepted(), full)

    def test_switched_off_the_engine_is_alone_with_the_driver(self):
        done = self.run_engine("simulated_engine.py", KVCACHED_DISABLE="1")
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue(done.stderr.endswith("AssertionError: 2\n"), done.stderr)  # out of memory


if __name__ == "__main__":
    unittest.main()
