"""The probe of bench/vllm_alone in the adapter, on an engine core."""
import json
import pathlib
import tempfile
import threading
import time
import unittest
from unittest import mock

import alone  # noqa: F401 (finds the benchmark)
import worlds
from doubles import library as library_double
from vllm_alone import probe, probed_server


class ProbeTest(unittest.TestCase):
    def install(self, path):
        """In the classes of the test's library; undone afterwards."""
        for (module, owner), names in probed_server.ENTRIES.items():
            place = getattr(worlds.package, module)
            place = getattr(place, owner) if owner else place
            for name in names:
                self.addCleanup(setattr, place, name, getattr(place, name))
        for name in probed_server.CALLS:
            self.addCleanup(setattr, library_double.Cache, name,
                            getattr(library_double.Cache, name))
        with mock.patch.object(worlds.package.client, "Cache", library_double.Cache):
            probed_server.Probe(path).install(worlds.package)

    def test_each_step_and_each_call_is_counted_once(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "probed"
            self.install(path)
            engine = worlds.Engine(worlds.Library())
            engine.add("before", range(100), 4)
            engine.run()
            begun = time.time()
            steps = 0
            for i in range(6):
                engine.add("r%d" % i, range(i, i + 100), 20)
            while engine.busy():
                engine.step()
                steps += 1
            found = probe.read(path, begun)
        # From the end of the first to the end of the last.
        self.assertEqual(found["steps"], steps - 1)
        self.assertEqual(found["by"]["after_step"]["calls"], steps)
        self.assertGreater(found["by"]["popleft_n"]["calls"], 0)
        self.assertGreater(found["by"]["library: release"]["calls"], 0)
        self.assertLess(found["us"]["p50"], found["us"]["max"])
        self.assertLess(found["library_us"]["mean"], found["us"]["mean"])
        self.assertGreater(found["library_calls_per_step"], 0)
        self.assertTrue(0 < found["share_of_time"] < 1)
        self.assertTrue(0 < found["share_of_time_stock_queue"] < 1)
        self.assertTrue(0 < found["share_of_time_probe"] < found["share_of_time"])
        self.assertGreater(found["entries_per_step"], 2)

    def test_nested_calls_and_other_threads_do_not_count(self):
        seen = probed_server.Probe("/nowhere")
        inner = seen.entry("inner", lambda: time.sleep(0.01))
        outer = seen.entry("outer", inner)
        outer()
        other = threading.Thread(target=outer)
        other.start()
        other.join()
        self.assertEqual([(name, calls) for name, (calls, *_) in seen.by.items()], [("outer", 1)])
        self.assertEqual(seen.by["outer"][1], seen.ours)

    def test_what_no_probe_wrote(self):
        self.assertEqual(probe.read(pathlib.Path("/nowhere"), 0), {"steps": 0})

    def test_a_stretch_before_the_load_does_not_count(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "probed"
            path.write_text("".join(json.dumps(line) + "\n" for line in (
                {"steps": [[1.0, 9000, 0, 9, 0, 9, 900]], "by": {"settle": [1, 9000, 9000]},
                 "empty_ns": 9000},
                {"steps": [[10.0, 5000, 0, 5, 0, 9, 900], [11.0, 20000, 15000, 2, 10 ** 8, 3, 1000],
                           [12.0, 40000, 5000, 4, 10 ** 9, 5, 3000]],
                 "by": {"settle": [3, 60000, 40000]}, "empty_ns": 500})))
            found = probe.read(path, 9.0)
        self.assertEqual((found["steps"], found["steps_per_s"]), (2, 1))
        self.assertEqual((found["us"]["mean"], found["us"]["p50"], found["us"]["max"]), (30, 20, 40))
        self.assertEqual((found["library_us"]["max"], found["library_calls_per_step"]), (15, 3))
        self.assertAlmostEqual(found["share_of_time"], 3e-5)
        self.assertAlmostEqual(found["share_of_processor_time"], 6e-5)
        self.assertEqual(found["by"]["settle"]["calls"], 3)
        self.assertEqual((found["entries_per_step"], found["empty_us"]), (4, 0.5))
        self.assertAlmostEqual(found["share_of_time_probe"], 2e-6)
        self.assertEqual(found["stock_queue_us"]["mean"], 2)
        self.assertEqual((found["beyond_us"]["p50"], found["beyond_us"]["max"]), (19, 37))
        self.assertAlmostEqual(found["share_of_time_stock_queue"], 2e-6)


if __name__ == "__main__":
    unittest.main()
