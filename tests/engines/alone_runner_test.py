"""The runner of bench/vllm_alone: turns, resuming, deadlines, failures, bad input."""
import contextlib
import io
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time
import types
import unittest
from unittest import mock

import alone
from vllm_alone import __main__ as command
from vllm_alone import client, gpu, processes, runner, runs, server, workloads


class Clock:
    """Time passes only where a run takes it."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    strftime = staticmethod(time.strftime)


class PlanTest(unittest.TestCase):
    """The runner without engines: what it would start, and when."""

    def setUp(self):
        self.bench = alone.Bench(self, starts_engines=False)
        self.clock = Clock()
        self.took = []
        self.failing = set()

    def call(self, seconds=100.0, preparation=40.0, **options):
        """One call of the benchmark, whose runs take so long."""
        took = self.took = []

        def run(run, *arguments):
            name = run.log.stem
            took.append(name)
            self.clock.now += preparation if name.startswith("prepare") else seconds
            if name in self.failing:
                raise server.Failed("as the test wants it")
            return {"startup_s": 1.0, "workloads": {}, "capacity": 50.0}

        with mock.patch.object(runs, "serve", run), mock.patch.object(runs, "offline", run), \
                mock.patch.object(runner, "time", self.clock):
            return runner.Runner(self.bench.options(**options), gpu.Gpu(), lambda _: None).run()

    def test_stock_and_elastic_take_turns_in_being_first(self):
        self.assertEqual(self.call(rounds=3), runner.DONE)
        self.assertEqual(self.took, ["prepare-offline", "offline-01-stock", "offline-01-elastic",
                                     "offline-02-elastic", "offline-02-stock", "offline-03-stock",
                                     "offline-03-elastic"])

    def test_a_next_call_goes_on_with_what_is_missing(self):
        self.assertEqual(self.call(rounds=1), runner.DONE)
        self.assertEqual(self.call(rounds=2), runner.DONE)
        self.assertEqual(self.took, ["offline-02-elastic", "offline-02-stock"])
        (self.bench.results / "offline-01-stock.json").unlink()
        (self.bench.results / "offline-02-stock.json").write_text("{damaged")
        self.call(rounds=2)
        self.assertEqual(self.took, ["offline-01-stock", "offline-02-stock"])

    def test_nothing_is_begun_that_might_not_end_in_time(self):
        # Nothing is known: 100 s for the preparation, 150 for each of a pair.
        self.assertEqual(self.call(deadline=399), runner.UNFINISHED)
        self.assertEqual(self.took, ["prepare-offline", "offline-01-stock", "offline-01-elastic"])
        # The longest took 100 s, and there is nothing left to prepare.
        self.assertEqual(self.call(deadline=399, rounds=4), runner.UNFINISHED)
        self.assertEqual(self.took, ["offline-02-elastic", "offline-02-stock"])
        self.assertEqual(self.call(deadline=400, rounds=4), runner.DONE)

    def test_a_pair_is_torn_apart_only_where_two_never_fit(self):
        self.assertEqual(self.call(deadline=260), runner.UNFINISHED)
        self.assertEqual(self.took, ["prepare-offline", "offline-01-stock", "offline-01-elastic"])
        self.assertEqual(self.call(seconds=180, deadline=190), runner.UNFINISHED)
        self.assertEqual(self.took, ["offline-02-elastic"])
        self.assertEqual(self.call(deadline=190), runner.DONE)
        self.assertEqual(self.took, ["offline-02-stock"])
        self.assertEqual(self.call(deadline=150, rounds=3), runner.UNFINISHED)
        self.assertEqual(self.took, [])  # the longest took 180 s

    def test_a_failure_is_kept_and_tried_again(self):
        self.failing = {"offline-01-elastic"}
        self.assertEqual(self.call(), runner.FAILED)
        self.assertEqual(self.took[-1], "offline-02-stock")
        failed = self.bench.results / "offline-01-elastic.failed.json"
        self.assertIn("as the test wants it", failed.read_text())
        self.failing = set()
        self.assertEqual(self.call(), runner.DONE)
        self.assertEqual(self.took, ["offline-01-elastic"])
        self.assertFalse(failed.exists())

    def test_a_mode_that_cannot_be_prepared_is_left_for_the_next(self):
        self.failing = {"prepare-serve"}
        self.assertEqual(self.call(modes=["serve", "invariant"], rounds=5), runner.FAILED)
        self.assertEqual(self.took[:2], ["prepare-serve", "prepare-invariant"])
        self.assertEqual(len(self.took), 2 + 2 * runner.INVARIANT_ROUNDS)

    def test_runs_of_another_library_are_not_mixed(self):
        self.call(rounds=1)
        self.bench.library.write_text("another")
        with self.assertRaisesRegex(runner.Conflict, "another library"):
            self.call()
        self.assertEqual(self.took, [])


class CommandTest(unittest.TestCase):
    """The whole benchmark on a vLLM that stands in."""

    def setUp(self):
        self.bench = alone.Bench(self)

    def test_serve(self):
        done = self.bench.measure("--modes", "serve", "--rounds", "1")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        # The first is the preparation.
        self.assertEqual(self.bench.started(), ["serve stock", "serve stock", "serve elastic"])
        stock, elastic = (self.bench.record("serve-01-" + k) for k in ("stock", "elastic"))
        self.assertEqual(stock["capacity"], elastic["capacity"])
        self.assertEqual(stock["stats"], [])
        self.assertEqual(elastic["stats"][0][2]["pools"][0]["processes"][0]["grows"], 3)
        for name in ("burst", "long", "steady 0.8", "shared 0.5"):
            for a, b in zip(stock["workloads"][name], elastic["workloads"][name]):
                self.assertEqual(len(a["ttft_ms"]), len(b["ttft_ms"]))
                self.assertTrue(all(ms >= 2 for ms in a["ttft_ms"] + b["ttft_ms"]))
        self.assertIn("</svg>", (self.bench.results / "report.svg").read_text())

    def test_offline(self):
        done = self.bench.measure("--modes", "offline", "--rounds", "1")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(self.bench.started(), ["offline stock", "offline stock", "offline elastic"])
        self.assertIn("- offline: met.", done.stdout)
        record = self.bench.record("offline-01-elastic")
        self.assertEqual([phase[0] for phase in record["phases"]], [
            "burst", "burst", "idle", "burst after idle", "one", "one", "long", "long", "shared",
            "shared"])
        self.assertEqual(len(record["stats"]), 1 + len(record["phases"]))

    def test_failures_are_told_in_one_line_and_tried_again(self):
        for stub, words in (("crash-elastic", "the engine ended with status 7"),
                            ("plain-elastic", "is not elastic: .* no vLLM")):
            done = self.bench.measure("--modes", "invariant", "--rounds", "1", stub=stub)
            self.assertEqual((done.returncode, done.stderr), (1, ""))
            self.assertRegex(done.stdout, "invariant-01-elastic FAILED: .*" + words)
        self.assertEqual(self.bench.started(), [
            "serve stock invariant"] * 2 + ["serve elastic invariant"] * 2)
        done = self.bench.measure("--modes", "invariant", "--rounds", "1",
                                  stub="other-tokens-elastic")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        # Every request has another token then.
        self.assertRegex(done.stdout,
                         r"invariant: missed\. Of (\d+) .* agree on \1; .* differs in \1 of these")

    def test_a_process_that_the_offline_child_spawns_keeps_its_path(self):
        before = ["/first", str(alone.BENCH / "vllm_alone"), *sys.path]
        with mock.patch.object(sys, "path", before):
            runpy.run_path(str(alone.BENCH / "vllm_alone" / "offline_child.py"), run_name="__mp_main__")
            self.assertEqual(before[0], "/first")
            self.assertNotIn(str(alone.BENCH / "vllm_alone"), before)

    def test_one_request_without_a_right_answer_spoils_a_run(self):
        def play(port, model, requests, limit, in_flight):
            answers = [client.Answer(request) for request in requests]
            answers[1].pieces = [(1.0, b"HTTP/1.1 400 Bad\r\n\r\nno such model")]
            for answer in answers[::2]:
                answer.pieces = [(1.0, b"HTTP/1.1 200 OK\r\n\r\ndata: {\"choices\": [{\"token_ids\""
                                  b": [5]}]}\n\ndata: [DONE]\n\n")]
            return answers, 0.1
        run = runs.Run(self.bench.options(), gpu.Gpu(), "x", "serve", False, 60)
        engine = types.SimpleNamespace(
            port=1, process=types.SimpleNamespace(pid=os.getpid()), check=lambda wait: None)
        with mock.patch.object(client, "play", play), self.assertRaisesRegex(
                server.Failed, "1 of 3 requests failed; the first: 400: no such model"):
            runs._play(run, engine, [workloads.Request([1], 1)] * 3)

    def test_a_run_over_its_limit_is_ended(self):
        done = self.bench.measure("--modes", "offline", "--rounds", "1", "--run-limit", "0.6",
                                  stub="hang")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("prepare-offline FAILED: stopped: the run's time is over", done.stdout)
        self.assertEqual(self.engines(), [])

    def test_engines_end_with_the_benchmark(self):
        env = dict(os.environ, STUB_FIRST="30", STUB_STARTS=str(self.bench.starts))
        running = subprocess.Popen(self.bench.command(
            "measure", "--site", alone.SITE, "--build", self.bench.build, "--results",
            self.bench.results, "--work", self.bench.folder / "work", "--modes", "serve"),
            env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while not self.bench.started() and time.monotonic() < until:
            time.sleep(0.02)
        self.assertNotEqual(self.engines(), [])
        running.send_signal(signal.SIGTERM)
        self.assertEqual(running.wait(20), 128 + signal.SIGTERM)
        self.assertEqual(self.engines(), [])

    def engines(self):
        """Processes that run in this test's work folder."""
        found = []
        for entry in processes.PROC.iterdir():
            try:
                if entry.name.isdigit() and pathlib.Path(os.readlink(entry / "cwd").replace(
                        " (deleted)", "")).is_relative_to(self.bench.folder):
                    found.append(entry.name)
            except OSError:
                continue
        return found

    def test_bad_input_is_one_line_and_status_2(self):
        for arguments, words in (
                (["--rounds", "0"], "--rounds"), (["--modes", "serve,fly"], "fly is none of"),
                (["--deadline", "soon"], "--deadline"), (["--site", "/nowhere"], "no vllm in it"),
                (["--model", "/nowhere"], "no config.json"), (["--build", "/nowhere"], "--build"),
                (["--set", "WARM=1"], "KVCACHED_NAME=VALUE"), (["--results", "/proc/x"], "/proc/x"),
                (["--nonsense"], "--nonsense")):
            self.assertRegex(self.refusal(
                "measure", "--site", str(alone.SITE), "--build", str(self.bench.build), "--results",
                str(self.bench.results), "--work", str(self.bench.results), *arguments),
                "^vllm_alone: .*%s.*\n$" % words)
        for arguments in (["report", "/nowhere"], ["report"], ["measure"], []):
            self.assertRegex(self.refusal(*arguments), "^vllm_alone: .*\n$")
        done = self.bench.measure("--nonsense")
        self.assertEqual((done.returncode, done.stderr.count("\n"), done.stdout), (2, 1, ""))

    def refusal(self, *arguments):
        said = io.StringIO()
        with contextlib.redirect_stderr(said), self.assertRaises(SystemExit) as ended:
            command.main(list(arguments))
        self.assertEqual(ended.exception.code, 2)
        return said.getvalue()


if __name__ == "__main__":
    unittest.main()
