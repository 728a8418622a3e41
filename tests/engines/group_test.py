"""An engine with several GPUs from end to end on simulated ones: a scheduler and its ranks, each a
process, over the library itself."""
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
A_BLOCK = 3 * (64 << 10)
STRESS = bool(os.environ.get("KVCACHED_STRESS"))


class Group(unittest.TestCase):
    maxDiff = None

    def run_engine(self, ranks, blocks=2048, **scenario):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("gpu", "pool"):
                os.mkdir(os.path.join(folder, name))
            # Nothing stays warm: a release that comes too early is seen at once.
            env = dict({k: v for k, v in os.environ.items() if not k.startswith("KVCACHED_")},
                       KVCACHED_BUILD=str(BUILD), KVCACHED_DIR=folder + "/pool", KVCACHED_WARM="0",
                       SIM_GPU_DIR=folder + "/gpu", SIM_GPU_MEMORY="512MiB",
                       SIM_GPU_COUNT=str(ranks), LD_LIBRARY_PATH=str(BUILD / "sim"),
                       LD_PRELOAD=str(BUILD / "libkvcached.so"))
            done = subprocess.run(
                [sys.executable, "-B", str(HERE / "group_engine.py"),
                 json.dumps(dict(ranks=ranks, blocks=blocks, **scenario))],
                env=env, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads(done.stdout)
        self.assertEqual(len(found["ranks"]), ranks - ("kill_before" in scenario))
        self.assertEqual([name for name in found["left"] if not name.startswith("GPU-")], [])
        return found, done.stderr

    def check_elastic(self, found):
        self.assertTrue(found["elastic"])
        for rank in found["ranks"]:
            self.assertEqual(rank["shown"], "elastic: 3 segments, 2048 blocks")
            self.assertEqual(rank["charged"], rank["resident"])
            self.assertLessEqual(rank["charged"], 16 * MIB)

    def test_memory_of_all_ranks_follows_the_load(self):
        for ranks, method in ((2, "fork"), (4, "spawn")):
            with self.subTest(ranks=ranks, method=method):
                found, log = self.run_engine(ranks, method=method, bursts=4 if STRESS else 2,
                                             settles_at=16 * MIB)
                self.assertEqual(log, "")
                self.check_elastic(found)
                self.assertGreater(found["finished"], 40)
                self.assertGreater(found["peak"], 200)
                self.assertEqual(len({rank["steps"] for rank in found["ranks"]}), 1)

    def test_a_rank_that_lags_loses_nothing_early(self):
        found, log = self.run_engine(2, slow={"1": 0.01}, settles_at=16 * MIB)
        self.assertEqual(log, "")
        self.check_elastic(found)

    def test_the_smallest_rank_decides(self):
        found, log = self.run_engine(3, environment={"1": {"KVCACHED_MAX": "40MiB"}}, seed=3,
                                     settles_at=16 * MIB)
        self.assertEqual(log, "")
        self.check_elastic(found)
        self.assertGreater(found["peak"], 100)
        self.assertLessEqual(found["peak"] * A_BLOCK, 40 * MIB)

    def test_a_killed_rank_stops_nobody(self):
        for seed in range(12 if STRESS else 3):
            with self.subTest(seed=seed):
                found, _ = self.run_engine(3, seed=seed, kill_before=60)
                # One wait for it, as long as any other, and then none.
                self.assertLess(found["slowest"], 1)
                for rank in found["ranks"]:
                    self.assertEqual(rank["charged"], rank["resident"])
                    self.assertGreater(rank["charged"], 0)
                    # Whether the scheduler had to ask it for anything any more.
                    self.assertIn(rank["shown"], ("pinned, waiting for memory: rank 1 died",
                                                  "elastic: 3 segments, 2048 blocks"))

    def test_a_rank_that_cannot_makes_all_plain(self):
        found, log = self.run_engine(2, environment={"1": {"KVCACHED_DISABLE": "1"}}, bursts=1,
                                     blocks=256, settles_at=256 * A_BLOCK)
        self.assertIn("rank 1 is not elastic", log)
        self.assertFalse(found["elastic"])
        self.assertEqual(found["ranks"][0]["shown"], "pinned: rank 1 is not elastic")
        self.assertEqual(found["ranks"][0]["resident"], 256 * A_BLOCK)
        self.assertEqual(found["ranks"][1]["said"], ["stock: the library passes through"])

    def test_workers_elsewhere_run_as_stock(self):
        found, log = self.run_engine(2, blocks=256, backend="ray", bursts=1, settles_at=0)
        self.assertIn("not our children", log)
        self.assertFalse(found["elastic"])
        for rank in found["ranks"]:
            self.assertEqual(rank["said"], ["stock: scheduler and worker are different processes"])
            self.assertEqual(rank["charged"], 0)


if __name__ == "__main__":
    unittest.main()
