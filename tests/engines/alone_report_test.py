"""Figures, table and picture of bench/vllm_alone, from records with known answers."""
import json
import pathlib
import tempfile
import types
import unittest
import xml.etree.ElementTree
from unittest import mock

import alone  # noqa: F401 (finds the benchmark)
from vllm_alone import condense, figures, gpu, report, runner

MACHINE = {"gpu": "G", "gpu_id": "1", "driver": "5", "processors": 4}


def repeat(seconds=1.0, tokens=1000, ttft=(), tpot=(), digests=("a", "b")):
    return {"requests": 2, "seconds": seconds, "tokens": tokens, "ttft_ms": list(ttft),
            "tpot_ms": list(tpot), "digests": list(digests), "client_busy": 0.1,
            "late_ms_p99": 0.2, "processors": {"scheduler": 0.5, "core": 1.0, "others": 0.1,
                                              "busiest": 0.1}}


def record(mode, number, kind, workloads, startup=10.0, **more):
    memory = {"at_ready_mib": 100.0, "trace": [(0.0, 0.0), (5.0, 2048.0), (9.0, 512.0)],
              "phases": {"burst": {"peak_mib": 900.0, "end_mib": 800.0},
                         "idle": {"peak_mib": 800.0, "end_mib": 300.0, "settled_s": 2.5,
                                  "curve": [(0.1, 800.0), (0.9, 700.0), (1.9, 300.0)]}}}
    return dict({"mode": mode, "round": number, "kind": kind, "workloads": workloads,
                 "startup_s": startup, "machine": MACHINE, "call": "c", "library": "l",
                 "date": "2026-01-01T00:00:00", "capacity": 9.0, "memory": memory, "stats": [],
                 "seconds": 5.0}, **more)


def three_rounds(ratios):
    """Offline bursts, two pieces a round, where elastic has so much of stock's throughput."""
    found = {}
    for i, ratio in enumerate(ratios, 1):
        for kind, speed in (("stock", 1000 * i), ("elastic", 1000 * i * ratio)):
            found["offline-%02d-%s" % (i, kind)] = record(
                "offline", i, kind, {"burst": [repeat(tokens=speed * s, seconds=s)
                                               for s in (1.0, 2.0)]})
    return found


class FiguresTest(unittest.TestCase):
    def test_ratios_are_medians_over_pairs_of_pieces(self):
        (row,) = [r for r in figures.rows(three_rounds([0.90, 0.995, 1.2]), "offline")]
        self.assertEqual((row.workload, row.metric), ("burst", "tokens/s"))
        self.assertAlmostEqual(row.ratio(), 0.995)
        self.assertEqual((row.median("stock"), len(row.pairs)), (2000, 6))
        for ratios, verdict in (([0.995] * 3, "met"), ([0.98] * 3, "missed"),
                                ([0.90, 0.995, 1.2], "met within noise"),
                                ([0.98, 0.98, 1.2], "missed within noise")):
            (row,) = figures.rows(three_rounds(ratios), "offline")
            self.assertEqual(row.verdict(), verdict)

    def test_the_mean_is_of_ratios_and_comes_with_its_error(self):
        row = figures.Row("serve", "burst", "tokens/s")
        self.assertEqual(row.mean(), (None, None))
        row.pairs = [2.0]
        self.assertEqual(row.mean(), (2.0, None))
        row.pairs = [0.5, 2.0, 1.0, 1.0]
        mean, error = row.mean()
        self.assertAlmostEqual(mean, 1.0)
        self.assertAlmostEqual(error, 0.283, 3)
        row.pairs = [0.0, 1.0]
        self.assertEqual(row.mean(), (None, None))

    def test_pieces_are_paired_by_their_number_whatever_the_order_of_the_workloads(self):
        one, two = repeat(tokens=100), repeat(tokens=200)
        records = {"stock": record("offline", 1, "stock", {"burst": [one, two], "long": [one]}),
                   "elastic": record("offline", 1, "elastic", {"long": [two], "burst": [one, one]})}
        self.assertEqual({row.workload: sorted(row.pairs) for row in figures.rows(records, "offline")},
                         {"burst": [0.5, 1.0], "long": [2.0]})

    def test_the_interval_goes_by_signs(self):
        # Of 20 tosses, 5 or fewer are heads in 2.1 %, 6 or fewer in 5.8 %.
        for count, bounds in ((1, (1, 1)), (4, (1, 4)), (5, (1, 5)), (8, (2, 7)), (20, (6, 15))):
            self.assertEqual(figures.interval(list(range(count, 0, -1))), bounds)

    def test_latencies_need_enough_requests_for_p99(self):
        def pair(elastic, count=50):
            few = count // 10
            slow = [100] * (count - few) + [elastic] * few
            return {kind: record("serve", 1, kind, {"steady 0.5": [
                repeat(ttft=slow if kind == "elastic" else [100] * count, tpot=[10] * count)]})
                for kind in ("stock", "elastic")}
        rows = {r.metric: r for r in figures.rows(pair(104), "serve")}
        self.assertEqual(sorted(rows), ["TPOT p50 ms", "TPOT p99 ms", "TTFT p50 ms", "TTFT p99 ms"])
        self.assertEqual((rows["TTFT p50 ms"].ratio(), rows["TTFT p99 ms"].ratio()), (1.0, 1.04))
        self.assertEqual((rows["TTFT p50 ms"].verdict(), rows["TTFT p99 ms"].verdict()),
                         ("met", "missed"))
        self.assertNotIn("TTFT p99 ms", {r.metric for r in figures.rows(pair(104, 49), "serve")})

    def test_unlike_gpus_and_half_pairs_are_not_compared(self):
        records = three_rounds([0.5, 1.0])
        records["offline-01-elastic"]["machine"] = dict(MACHINE, gpu="H")
        del records["offline-02-stock"]
        (row,) = figures.rows(records, "offline")
        self.assertEqual((row.pairs, row.verdict(), row.median("stock")), ([], "", 1000))

    def test_all_rounds_as_one(self):
        def pair(number, ttft):
            return {"serve-%02d-%s" % (number, kind): record("serve", number, kind, {"burst": [
                repeat(tokens=100 * (1 if kind == "stock" else 0.9), seconds=number,
                       ttft=[10.0] * 24 + [ttft if kind == "elastic" else 10.0])]})
                for kind in ("stock", "elastic")}
        rows = {r.metric: r for r in figures.rows({**pair(1, 20.0), **pair(2, 30.0)}, "serve")}
        # Too few requests in each round for its p99, but not in both.
        self.assertEqual((rows["TTFT p99 ms"].pairs, rows["TTFT p99 ms"].pooled), ([], 3.0))
        self.assertEqual(rows["TTFT p99 ms"].verdict(), "")
        self.assertAlmostEqual(rows["tokens/s"].pooled, 0.9)

    def test_start_up_is_compared_in_pairs(self):
        records = {"start-%02d-%s" % (i, kind): record("start", i, kind, {}, seconds)
                   for i, more in enumerate((0.1, 0.7, 0.4), 1)
                   for kind, seconds in (("stock", 10.0), ("elastic", 10.0 + more))}
        records.update(three_rounds([1]))  # engines that started one after the other do not count
        by_kind, more = figures.startups(records)
        self.assertEqual(by_kind["stock"], [10.0] * 3)
        self.assertEqual([round(m, 3) for m in sorted(more)], [0.1, 0.4, 0.7])
        self.assertIn("| 0.40 | at most +0.5 s met | 0.10–0.70 |", report.startup(records))

    def test_idle_memory_is_compared_with_stocks_without_its_cache(self):
        records = three_rounds([1])
        for data in records.values():
            data["cache_mib"] = 2000.0
        # Stock has 300 + 2000 then, elastic 300 + 500.
        for kind, mib in (("stock", 2300.0), ("elastic", 800.0)):
            records["offline-01-" + kind]["memory"]["phases"]["idle"]["curve"] = [
                (0.1, 2500.0), (9.9, mib), (10.1, 0.0)]
        self.assertEqual(figures.idle_memory(records, "offline", {}), ([500.0], 700.0))
        for text, limit in (("0", 600), ("10%", 800), ("64MiB", 664), ("9GiB", 2600)):
            self.assertEqual(figures.idle_memory(
                records, "offline", {"KVCACHED_PREFIX_CACHE": text})[1], limit)
        self.assertIn("- offline: met. 10 s after a load, elastic has 500 MiB",
                      report.idle(records, {}))

    def test_tokens_are_compared_where_stock_agrees_with_itself(self):
        def outputs(**digests):
            return {name: record("invariant", int(name[-1]), name[:-1],
                                 {"burst": [repeat(digests=list(text))]})
                    for name, text in digests.items()}
        found = figures.tokens(outputs(stock1="abcd", stock2="abxd", elastic1="abyd"), "invariant")
        self.assertEqual([found[k] for k in ("requests", "agreed", "differ")], [4, 3, 0])
        found = figures.tokens(outputs(stock1="abcd", stock2="abcd", elastic1="abcd",
                                       elastic2="abce"), "invariant")
        self.assertEqual([found[k] for k in ("agreed", "differ", "differ_in")], [4, 1, ["burst"]])
        self.assertIsNone(figures.tokens(outputs(stock1="ab"), "invariant"))

    def test_tokens_of_rounds_with_their_own_prompts(self):
        def outputs(second):
            return {"%d%s" % (n, kind): record("offline", n, kind, {"burst": [repeat(digests=d)]})
                    for n, kind, d in ((1, "stock", "ab"), (1, "elastic", "ab"),
                                       (2, "stock", "cd"), (2, "elastic", second), (3, "stock", "ef"))}
        for second, differ in (("cd", 0), ("cx", 1), ("ab", 2)):
            found = figures.tokens(outputs(second), "offline")
            self.assertEqual((found["requests"], found["agreed"], found["differ"]), (4, 4, differ))

    def test_memory_of_each_engine(self):
        watch = gpu.Watch(gpu.Gpu())
        watch.sessions, watch.before = [50, 60], frozenset([1])
        watch.samples = [(1.0, {1: 100, 7: 150}), (2.0, {1: 100, 7: 300, 9: None}),
                         (3.0, {1: 100, 7: 300, 9: 40})]
        cores = {50: types.SimpleNamespace(pid=51), 60: types.SimpleNamespace(pid=61)}
        # Either the driver's numbers are ours, or they are not and their order tells.
        for sessions in ({7: 50, 9: 60}, {7: None, 9: None}, {7: 60, 9: 2}):
            with mock.patch.object(gpu.processes, "session_of", sessions.get), \
                    mock.patch.object(gpu.processes, "engine_core", cores.get):
                self.assertEqual(watch.of(50), [(1.0, 150), (2.0, 300), (3.0, 300)])
                self.assertEqual(watch.of(60), [(1.0, 0), (3.0, 40)])
        with mock.patch.object(gpu.processes, "session_of", {}.get), \
                mock.patch.object(gpu.processes, "engine_core", {50: cores[50]}.get):
            self.assertEqual(watch.of(50), [])
        self.assertEqual(gpu.Watch(gpu.Gpu()).of(50), [])

    def test_memory_after_a_burst_with_its_times(self):
        samples = [(i / 10, mib) for i, mib in enumerate([0] * 10 + [900] * 10 + [500] * 10 +
                                                         [200] * 20)]
        found = gpu.summarize(samples, [("burst", 0.5, 1.0), ("burst", 1.0, 1.9), ("idle", 2.0, 5)])
        self.assertEqual(found["burst"], {"peak_mib": 900, "end_mib": 900})
        self.assertEqual((found["idle"]["end_mib"], found["idle"]["settled_s"]), (200, 0.9))
        self.assertEqual(gpu.at(samples, 1.95), 900)
        medians = figures.memory(three_rounds([1.0]), "offline", "stock")
        self.assertEqual(medians, {"at ready": 100, "peak of burst": 900, "idle, 1 s": 700,
                                   "idle, 2 s": 300, "idle, end": 300,
                                   "idle, settled after (s)": 2.5})


class ReportTest(unittest.TestCase):
    def write(self, records, starts=()):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / runner.STARTS).write_text(json.dumps(starts))
            for name, data in records.items():
                (pathlib.Path(folder) / (name + ".json")).write_text(json.dumps(data))
            (pathlib.Path(folder) / "serve-09-stock.json").write_text("{broken")
            (pathlib.Path(folder) / "serve.failed.json").write_text(
                '{"name": "serve", "error": "it died"}')
            text = report.write(pathlib.Path(folder))
            picture = xml.etree.ElementTree.parse(pathlib.Path(folder) / "report.svg")
        return text, ["".join(e.itertext()) for e in picture.iter() if e.tag.endswith("}text")]

    def test_any_subset_makes_a_report(self):
        records = three_rounds([0.9, 1.0, 1.1])
        self.assertIn("No round is complete", self.write({})[0])
        for name in records:
            text, _ = self.write({name: records[name]})
            self.assertIn("0 of 0 ratios meet", text)
        text, words = self.write(records)
        self.assertIn("| offline, burst | tokens/s | 1.000 | 0.900–1.100 | at least 0.99 met within "
                      "noise | 6 | 0.997 ± 0.037 | 1.033 | 2,000 | 2,000 |", text)
        self.assertIn("1 of 1 ratios meet their goal (1 of them within noise), 0 miss it (0 within "
                      "noise), by 6 pairs", text)
        self.assertIn("Failed: serve: it died", text)
        self.assertIn("offline, burst: tokens/s", words)
        self.assertTrue(any("GPU memory" in w for w in words))

    def test_without_memory_and_with_what_must_not_be_overlooked(self):
        records = three_rounds([0.5])
        for data in records.values():
            data["memory"] = {"at_ready_mib": None, "trace": [], "phases": {}}
        records["serve-01-stock"] = record("serve", 1, "stock", {"burst": [
            dict(repeat(ttft=[1.0]), client_busy=0.95)]})
        text, _ = self.write(records, starts=[{
            "mode": "offline", "call": "c 1", "startup_s": {"stock": 20.0}, "killed": ["elastic"]}])
        for words in ("Farthest from it: offline, burst, tokens/s: 0.500", "it was a bottleneck",
                      "offline, c: ready after 20.0 s (stock)",
                      "Had to be killed: offline-elastic"):
            self.assertIn(words, text)

    def test_records_are_told_from_other_files(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in (("serve-01-stock.json", json.dumps(record("serve", 1, "stock", {}))),
                               ("serve-02-stock.json", "[]"), ("manifest.json", "{}"),
                               ("serve.failed.json", "{}")):
                (pathlib.Path(folder) / name).write_text(text)
            self.assertEqual(list(runner.read_records(folder)), ["serve-01-stock"])


class CondenseTest(unittest.TestCase):
    def served(self, number, kind, factor):
        times = [factor * (i + 1) for i in range(60)]
        return record("serve", number, kind, {
            "burst": [repeat(seconds=2.0 * factor, ttft=times[:3], tpot=times[:3])],
            "shared 1.0": [dict(repeat(ttft=times, tpot=times), requests=60,
                                itl_ms={"p50": factor, "p99": factor})]})

    def lines(self, *factors):
        return [condense.line(self.served(number, kind, factor))
                for number, (stock, elastic) in enumerate(factors, 1)
                for kind, factor in (("stock", stock), ("elastic", elastic))]

    def test_starts_are_compared_together_as_each_is_by_itself(self):
        starts = [self.lines((1.0, 1.1), (1.0, 1.3)), self.lines((2.0, 2.4))]
        found = {(row.workload, row.metric): row for row in condense.rows(starts)}
        self.assertEqual([round(r, 6) for r in found["shared 1.0", "TTFT p99 ms"].pairs],
                         [1.1, 1.3, 1.2])
        self.assertAlmostEqual(found["burst", "tokens/s"].ratio(), 1 / 1.2)
        self.assertNotIn(("burst", "TPOT p99 ms"), found)  # too few requests
        records = {"serve-01-%s" % kind: self.served(1, kind, factor)
                   for kind, factor in (("stock", 1.0), ("elastic", 1.1))}
        alike = {(row.workload, row.metric): row.pairs for row in condense.rows(
            [self.lines((1.0, 1.1))])}
        for row in figures.rows(records, "serve"):
            if (row.workload, row.metric) in alike:
                self.assertEqual(row.pairs, alike.pop((row.workload, row.metric)))
        self.assertFalse(alike)
        self.assertIn("| serve, shared 1.0 | TTFT p50 ms | 1.200 |", report.together(
            list(found.values())))

    def test_a_round_without_its_other_half_is_left_out(self):
        self.assertEqual(condense.rows([self.lines((1.0, 1.1))[:1]]), [])


if __name__ == "__main__":
    unittest.main()
