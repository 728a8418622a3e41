"""The runner of bench/vllm_alone: turns, resuming, deadlines, failures, bad input."""
import contextlib
import io
import json
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
from vllm_alone import client, gpu, processes, runner, server, sides, workloads


class Clock:
    """Time passes only where a start or a round takes it."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, _):
        pass

    strftime = staticmethod(time.strftime)


def engine_ended():
    return types.SimpleNamespace(startup_s=1.0, ready=True, session=1, end=lambda _: None,
                                 engine=types.SimpleNamespace(ended_when_asked=True))


class PlanTest(unittest.TestCase):
    """The runner without engines: what it would do, and when."""

    def setUp(self):
        self.bench = alone.Bench(self, starts_engines=False)
        self.clock = Clock()
        self.failing = set()

    def call(self, round_s=50.0, start_s=40.0, **options):
        """One call of the benchmark, whose starts and rounds take so long. `done`: what it did."""
        self.done = done = []
        clock, failing, log = self.clock, self.failing, self.bench.folder / "log"

        def happen(what, seconds):
            done.append(what)
            clock.now += seconds
            if what in failing:
                raise server.Failed("as the test wants it", log)

        class Duet:
            def __init__(self, options, mode, kinds, limit):
                self.mode, self.kinds = mode, kinds
                self.sides = {kind: engine_ended() for kind in kinds}
                self.until = None

            def launch(self):
                done.append(self.mode + " starts")
                self.until = clock.now + start_s

            def is_ready(self):
                if self.mode + " starts" in failing:
                    raise server.Failed("as the test wants it", log)
                clock.now = max(clock.now, self.until)
                return True

            def warm_up(self):
                pass

            def capacity(self):
                done.append("capacity of " + self.kinds[0])
                return 50.0

            def play(self, number, order, capacity, watch):
                happen("%d %s" % (number, " ".join(order)), round_s)
                return {kind: {"startup_s": 1.0, "workloads": {}, "capacity": capacity}
                        for kind in order}

        def start(_, kind):
            happen("start of " + kind, 10.0)
            return {"startup_s": 10.0, "workloads": {}}

        def end(duets, politely=True):
            done.extend(duet.mode + " ends" for duet in duets)

        with mock.patch.object(runner.duet, "Duet", Duet), \
                mock.patch.object(runner.duet, "end", end), \
                mock.patch.object(runner.Runner, "_start", start), \
                mock.patch.object(runner, "time", clock), \
                contextlib.redirect_stdout(io.StringIO()) as self.said:
            return runner.Runner(self.bench.options(**options), gpu.Gpu(), lambda _: None).run()

    def test_engines_start_once_and_take_turns_in_being_first(self):
        self.assertEqual(self.call(rounds=3), runner.DONE)
        self.assertEqual(self.done, ["offline starts", "1 stock elastic", "2 elastic stock",
                                     "3 stock elastic", "offline ends"])
        self.assertEqual(self.bench.record("offline-02-stock")["seconds"], 50)

    def test_a_next_call_goes_on_with_the_rounds_that_are_missing(self):
        self.assertEqual(self.call(rounds=1), runner.DONE)
        self.assertEqual(self.call(rounds=1), runner.DONE)
        self.assertEqual(self.done, [])
        self.assertEqual(self.call(rounds=2), runner.DONE)
        self.assertEqual(self.done, ["offline starts", "2 elastic stock", "offline ends"])
        (self.bench.results / "offline-01-stock.json").unlink()
        (self.bench.results / "offline-02-stock.json").write_text("{damaged")
        self.call(rounds=3)
        self.assertEqual(self.done, ["offline starts", "1 stock elastic", "2 elastic stock",
                                     "3 stock elastic", "offline ends"])

    def test_nothing_is_begun_that_might_not_end_in_time(self):
        # Nothing is known: 150 s until all engines are ready, 15 until they are warm, 50 for a round,
        # 15 for their end.
        self.assertEqual(self.call(deadline=229, rounds=5), runner.UNFINISHED)
        self.assertEqual(self.done, [])
        # They took 40, and each round 50.
        self.assertEqual(self.call(deadline=230, rounds=5), runner.UNFINISHED)
        self.assertEqual(self.done, ["offline starts", "1 stock elastic", "2 elastic stock",
                                     "3 stock elastic", "offline ends"])
        self.assertEqual(self.call(deadline=154, rounds=5), runner.UNFINISHED)
        self.assertEqual(self.done, ["offline starts", "4 elastic stock", "offline ends"])
        self.assertEqual(self.call(deadline=119, rounds=5), runner.UNFINISHED)
        self.assertEqual(self.done, [])
        self.assertEqual(self.call(deadline=120, rounds=5), runner.DONE)

    def test_a_round_that_the_deadline_cuts_short_is_no_failure(self):
        self.failing = {"2 elastic stock"}
        self.assertEqual(self.call(deadline=230, start_s=120, round_s=50), runner.UNFINISHED)
        self.assertEqual(self.done, ["offline starts", "1 stock elastic", "offline ends"])
        self.assertEqual(self.call(deadline=200, start_s=120, round_s=66), runner.UNFINISHED)
        self.assertEqual(self.done, ["offline starts", "2 elastic stock", "offline ends"])
        self.assertEqual(list(self.bench.results.glob("*.failed.json")), [])

    def test_a_failure_ends_its_mode_is_kept_with_the_logs_tail_and_tried_again(self):
        (self.bench.folder / "log").write_text("".join("line %d\n" % i for i in range(99)))
        self.failing = {"2 elastic stock"}
        self.assertEqual(self.call(modes=["offline", "invariant"], rounds=3), runner.FAILED)
        self.assertEqual(self.done, [
            "offline starts", "1 stock elastic", "2 elastic stock", "offline ends",
            "invariant starts", "1 stock elastic", "2 elastic stock", "invariant ends"])
        failed = self.bench.results / "offline.failed.json"
        kept = json.loads(failed.read_text())
        self.assertEqual((kept["error"], len(kept["tail"]), kept["tail"][-1]),
                         ("as the test wants it", runner.TAIL, "line 98"))
        self.assertIn("| line 98", self.said.getvalue())
        self.assertNotIn("| line 68", self.said.getvalue())
        self.failing = set()
        self.assertEqual(self.call(rounds=3), runner.DONE)
        self.assertEqual(self.done[1], "2 elastic stock")
        self.assertFalse(failed.exists())

    def test_each_mode_has_its_engines_rounds_and_load(self):
        self.assertEqual(self.call(modes=list(runner.MODES), rounds=3), runner.DONE)
        self.assertEqual(self.done, [
            "serve starts", "profile starts", "offline starts",
            "capacity of stock", "1 stock elastic", "2 elastic stock", "3 stock elastic",
            "1 elastic", "1 stock elastic", "2 elastic stock", "3 stock elastic",
            "serve ends", "profile ends", "offline ends",
            "start of stock", "start of elastic", "start of elastic", "start of stock",
            "start of stock", "start of elastic",
            "invariant starts", "1 stock elastic", "2 elastic stock", "invariant ends"])
        self.assertEqual(self.bench.record("invariant-01-stock")["capacity"],
                         workloads.INVARIANT_CAPACITY)
        self.assertEqual(self.bench.record("profile-01-elastic")["capacity"], 50)

    def test_modes_that_are_complete_start_no_engines(self):
        self.call(modes=["serve"], rounds=2)
        self.call(modes=["serve", "offline"], rounds=2)
        self.assertEqual(self.done, ["offline starts", "1 stock elastic", "2 elastic stock",
                                     "offline ends"])

    def test_a_mode_whose_engines_do_not_start_leaves_the_others(self):
        self.failing = {"serve starts"}
        self.assertEqual(self.call(modes=["serve", "offline"], rounds=1), runner.FAILED)
        self.assertEqual(self.done, ["serve starts", "offline starts", "serve ends",
                                     "1 stock elastic", "offline ends"])

    def test_rounds_of_another_library_are_not_mixed(self):
        self.call(rounds=1)
        self.bench.library.write_text("another")
        with self.assertRaisesRegex(runner.Conflict, "another library"):
            self.call()
        self.assertEqual(self.done, [])


class CommandTest(unittest.TestCase):
    """The whole benchmark on a vLLM that stands in."""

    def setUp(self):
        self.bench = alone.Bench(self)

    def test_serve(self):
        done = self.bench.measure("--modes", "serve", "--rounds", "2")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertCountEqual(self.bench.started(), ["serve stock", "serve elastic"])
        stock, elastic = (self.bench.record("serve-01-" + k) for k in ("stock", "elastic"))
        self.assertEqual(stock["capacity"], elastic["capacity"])
        self.assertEqual(stock["stats"], [])
        self.assertEqual(elastic["stats"][0][2]["pools"][0]["processes"][0]["grows"], 3)
        for name in ("burst", "long", "steady 0.8", "shared 1.0"):
            for a, b in zip(stock["workloads"][name], elastic["workloads"][name]):
                self.assertEqual(len(a["ttft_ms"]), len(b["ttft_ms"]))
                self.assertTrue(all(ms >= 2 for ms in a["ttft_ms"] + b["ttft_ms"]))
                self.assertEqual(a["digests"], b["digests"])
        self.assertIn("</svg>", (self.bench.results / "report.svg").read_text())
        # Prompts are new to the engines in each round.
        again = self.bench.record("serve-02-stock")
        self.assertFalse(set(stock["workloads"]["burst"][0]["digests"]) &
                         set(again["workloads"]["burst"][0]["digests"]))
        self.assertEqual(again["started"], stock["started"])

    def test_only_one_engine_is_asked_at_a_time_and_both_rest_as_long(self):
        self.bench.measure("--modes", "serve", "--rounds", "2")
        for number, first in (("01", "stock"), ("02", "elastic")):
            pair = {kind: self.bench.record("serve-%s-%s" % (number, kind))
                    for kind in runner.KINDS}
            asked = [(begin, end, kind) for kind, record in pair.items()
                     for name, begin, end in record["phases"] if name != "idle"]
            asked.sort()
            for (_, end, _), (begin, _, _) in zip(asked, asked[1:]):
                self.assertLessEqual(end, begin + 0.002)  # of rounded times
            self.assertEqual(asked[0][2], first)
            for record in pair.values():
                (idle,) = [phase for phase in record["phases"] if phase[0] == "idle"]
                self.assertAlmostEqual(idle[2] - idle[1], 0.1, delta=0.003)
                before = record["phases"][record["phases"].index(idle) - 1]
                after = record["phases"][record["phases"].index(idle) + 1]
                self.assertEqual(before[2], idle[1])
                self.assertEqual(after[0], "burst after idle")
                self.assertGreaterEqual(after[1], idle[2] - 0.002)

    def test_offline(self):
        done = self.bench.measure("--modes", "offline", "--rounds", "2")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertCountEqual(self.bench.started(), ["offline stock", "offline elastic"])
        self.assertIn("- offline: met.", done.stdout)
        record = self.bench.record("offline-02-elastic")
        self.assertEqual([phase[0] for phase in record["phases"]], [
            "burst", "burst", "one", "one", "shared", "shared", "idle", "burst after idle", "long"])
        self.assertEqual([moment for moment, _, _ in record["stats"]], [
            "begin", "end of burst", "end of one", "end of shared", "end of idle",
            "end of burst after idle", "end of long"])
        self.assertEqual(self.engines(), [])

    def test_engines_of_several_modes_are_up_at_once(self):
        done = self.bench.measure("--modes", "serve,offline,profile", "--rounds", "1")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertCountEqual(self.bench.started(), [
            "serve stock", "serve elastic", "serve elastic", "offline stock", "offline elastic"])
        self.assertIn("profile: ready after", done.stdout.split("serve-01 took")[0])
        self.assertEqual(self.bench.record("profile-01-elastic")["capacity"],
                         self.bench.record("serve-01-stock")["capacity"])
        self.assertEqual(self.engines(), [])

    def test_starts_alone(self):
        done = self.bench.measure("--modes", "start", "--rounds", "2")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(self.bench.started(), [
            "serve stock", "serve elastic", "serve stock", "serve elastic", "serve elastic",
            "serve stock"])
        self.assertGreater(self.bench.record("start-02-elastic")["startup_s"], 0)
        self.assertRegex(done.stdout, r"at most \+0.5 s (met|missed) .* \| 2 \|")

    def test_a_profile_needs_steps(self):
        done = self.bench.measure("--modes", "profile")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(self.bench.started(), ["serve elastic"])
        self.assertIn("profile-01-elastic: no steps were seen", done.stdout)

    def test_failures_are_told_in_one_line_with_the_logs_tail_and_tried_again(self):
        for stub, words in (("crash-elastic", "the engine ended with status 7"),
                            ("plain-elastic", "is not elastic: .* no vLLM"),
                            ("keep-elastic", "elastic: the prefix cache was not reset")):
            done = self.bench.measure("--modes", "invariant", "--rounds", "1", stub=stub)
            self.assertEqual((done.returncode, done.stderr), (1, ""))
            self.assertRegex(done.stdout, "invariant FAILED: .*" + words)
            self.assertEqual(self.engines(), [])
        self.assertIn("    | Failed to reset prefix cache", done.stdout)
        self.assertEqual(self.bench.started().count("serve elastic invariant"), 3)
        done = self.bench.measure("--modes", "invariant", "--rounds", "1",
                                  stub="other-tokens-elastic")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        # Every request has another token then.
        self.assertRegex(done.stdout,
                         r"invariant: missed\. Of (\d+) .* agree on \1; .* differs in \1 of these")

    def test_an_engine_that_dies_while_the_other_is_asked(self):
        done = self.bench.measure("--modes", "offline", "--rounds", "1", stub="vanish-stock")
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        self.assertIn("offline FAILED: stock: the engine ended with status 9", done.stdout)
        self.assertIn("    | the double vanishes", done.stdout)
        self.assertEqual(self.engines(), [])

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
        self.bench.results.joinpath("logs").mkdir(parents=True)
        side = sides.Http(self.bench.options(places=None), "serve", "stock", sides.Limit())
        side.engine = types.SimpleNamespace(
            port=1, process=types.SimpleNamespace(pid=os.getpid()), check=lambda wait: None)
        with mock.patch.object(client, "play", play), self.assertRaisesRegex(
                server.Failed, "stock: 1 of 3 requests failed; the first: 400: no such model"):
            side.send([workloads.Request([1], 1)] * 3)

    def test_what_is_over_its_limit_is_ended(self):
        done = self.bench.measure("--modes", "offline", "--rounds", "1", "--run-limit", "0.6",
                                  stub="hang")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("offline FAILED: stopped: the time for it is over", done.stdout)
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
                (["--rounds", "0"], "--rounds"), (["--kv-gib", "0"], "--kv-gib"),
                (["--modes", "serve,fly"], "fly is none of"),
                (["--deadline", "soon"], "--deadline"), (["--site", "/nowhere"], "no vllm in it"),
                (["--model", "/nowhere"], "no config.json"), (["--build", "/nowhere"], "--build"),
                (["--set", "WARM=1"], "KVCACHED_NAME=VALUE"), (["--results", "/proc/x"], "/proc/x"),
                (["--nonsense"], "--nonsense")):
            self.assertRegex(self.refusal(
                "measure", "--site", str(alone.SITE), "--build", str(self.bench.build), "--results",
                str(self.bench.results), "--work", str(self.bench.results), *arguments),
                "^vllm_alone: .*%s.*\n$" % words)
        empty = str(self.bench.build)
        for arguments in (["report", "/nowhere"], ["report"], ["measure"], [], ["report", empty],
                          ["condense", empty], ["compare", empty], ["compare", __file__],
                          ["compare", "/dev/null"], ["compare"]):
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
