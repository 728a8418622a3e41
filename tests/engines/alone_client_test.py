"""The streaming client of bench/vllm_alone: what it measures, and how servers start and end."""
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

import alone
from vllm_alone import client, processes, server, workloads

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(text):
    data = b"data: " + text + b"\n\n"
    return b"%x\r\n" % len(data) + data + b"\r\n"


def tokens(*ids):
    return event(b'{"choices": [{"token_ids": [%s]}]}' % b",".join(b"%d" % i for i in ids))


END = event(b"[DONE]") + b"0\r\n\r\n"


def answer(pieces, output=3):
    found = client.Answer(workloads.Request([1], output))
    found.due = found.sent = 10.0
    found.pieces = pieces
    client.read(found)
    return found


class ReadingTest(unittest.TestCase):
    def test_times_are_those_of_complete_events(self):
        found = answer([(10.5, HEAD + tokens(7)), (10.75, tokens(8)[:9]), (11.0, tokens(8)[9:]),
                        (12.5, tokens(9) + END)])
        self.assertIsNone(found.error)
        self.assertEqual(found.chunks, [(10.5, [7]), (11.0, [8]), (12.5, [9])])
        figures = client.measure([found])
        self.assertEqual(figures["ttft_ms"], [500])
        self.assertEqual(figures["tpot_ms"], [1000])
        self.assertEqual(figures["itl_ms"], {"p50": 500, "p99": 1500, "max": 1500, "gaps": 2})
        self.assertEqual((figures["tokens"], figures["seconds"]), (3, 2.5))

    def test_any_split_reads_the_same(self):
        whole = HEAD + tokens(7) + tokens(8, 9) + END
        for size in range(1, 40):
            found = answer([(10.0 + i, whole[i:i + size]) for i in range(0, len(whole), size)])
            self.assertEqual((found.error, found.tokens), (None, [7, 8, 9]))

    def test_tokens_that_share_a_chunk_are_counted_each(self):
        figures = client.measure([answer([(11.0, HEAD + tokens(7)), (12.0, tokens(8, 9) + END)])])
        self.assertEqual((figures["tokens"], figures["tpot_ms"]), (3, [500]))

    def test_lateness_counts_as_waiting(self):
        found = answer([(11.0, HEAD + tokens(7, 8, 9) + END)])
        found.sent = 10.25
        figures = client.measure([found])
        self.assertEqual((figures["ttft_ms"], figures["late_ms_p99"]), ([1000], 250))

    def test_what_is_no_whole_answer_is_an_error(self):
        for pieces, words in (
                ([], "no status"),
                ([(11, b"HTTP/1.1 500 No\r\n\r\nbroken")], "500: broken"),
                ([(11, HEAD + tokens(7))], "broke off after 1"),
                ([(11, HEAD + tokens(7) + END)], "1 tokens instead of 3"),
                ([(11, HEAD + event(b'{"error": "out of memory"}') + END)], "out of memory"),
                ([(11, HEAD + b"zz\r\n")], "unreadable")):
            self.assertIn(words, answer(pieces).error)

    def test_digests_tell_tokens_apart(self):
        self.assertEqual(client.digest([1, 23]), client.digest([1, 23]))
        self.assertNotEqual(client.digest([1, 23]), client.digest([12, 3]))


class WorkloadTest(unittest.TestCase):
    def test_prompts_are_fixed_distinct_and_share_what_they_should(self):
        step = workloads.Burst("b", workloads.Shape(20, 5, prefix=30, groups=2), 4)
        prompts = [r.prompt for r in workloads.requests(step)]
        self.assertEqual(prompts, [r.prompt for r in workloads.requests(step)])
        self.assertEqual([len(p) for p in prompts], [50] * 4)
        for more in (dict(piece=1), dict(number=1)):
            again = workloads.requests(step, **more)[0].prompt
            for part in (slice(30), slice(30, 50)):
                self.assertNotEqual(prompts[0][part], again[part])
        self.assertEqual(len({tuple(p) for p in prompts}), 4)
        self.assertEqual(prompts[0][:30], prompts[2][:30])
        self.assertNotEqual(prompts[0][:30], prompts[1][:30])

    def test_engines_are_asked_in_turns_and_one_rests_while_the_other_is_asked(self):
        def turns(*steps):
            return " ".join("%s%s" % ("AB"[who], step.name) for who, step, _ in
                            workloads.turns(steps))
        shape = workloads.SHORT
        x, y, w = (workloads.Burst(name, shape, 1) for name in "xyw")
        after = (workloads.Rest("-", 1), w)
        self.assertEqual(turns(workloads.Burst("b", shape, 1, pieces=3), x), "Ab Bb Bb Ab Ab Bb Ax Bx")
        self.assertEqual(turns(workloads.AfterRest(*after, (x, y))), "Bx By A- Aw Ax Ay B- Bw")
        for name in workloads.PLANS:
            plan = workloads.plan(name)
            pieces = [[(step.name, piece) for w, step, piece in workloads.turns(plan) if w == who]
                      for who in (0, 1)]
            self.assertEqual(*map(sorted, pieces))
            for step in workloads.asked(plan):
                numbers = [piece for name, piece in pieces[0] if name == step.name]
                self.assertEqual(numbers, list(range(len(numbers))))
                self.assertGreaterEqual(len(numbers), step.pieces)

    def test_arrivals_follow_the_capacity(self):
        step = workloads.Steady("s", workloads.Shape(4, 4), load=0.5, seconds=100)
        arrivals = [r.at for r in workloads.requests(step, capacity=40.0)]
        self.assertAlmostEqual(len(arrivals), 2000, delta=200)
        self.assertEqual(arrivals, sorted(arrivals))
        self.assertLess(arrivals[-1], 100)


class ServerTest(unittest.TestCase):
    """On a server in a process of its own."""

    def serve(self, first=0.0, then=0.0, stub=""):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        env = dict(os.environ, PYTHONPATH=str(alone.SITE), STUB=stub, STUB_FIRST=str(first),
                   STUB_NEXT=str(then), PYTHONDONTWRITEBYTECODE="1")
        env.pop("LD_PRELOAD", None)
        started = server.Server(
            lambda port: [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", "model",
                          "--port", str(port), "--kv-cache-memory-bytes", str(20 << 30),
                          "--api-server-count", "1"],
            env, pathlib.Path(folder.name, "log"), folder.name)
        started.__enter__()
        self.addCleanup(started.__exit__)
        return started

    def wait(self, running, limit=20):
        end = time.monotonic() + limit
        while not running.is_healthy() and time.monotonic() < end:
            time.sleep(0.01)
        return running.is_healthy()

    def play(self, running, count, output, **more):
        asked = [workloads.Request([i, 5, 6], output, **more) for i in range(count)]
        answers, busy = client.play(running.port, "m", asked, 30)
        for found in answers:
            client.read(found)
        self.assertEqual([a.error for a in answers], [None] * count)
        return answers, busy

    def test_known_delays_are_measured_on_many_streams_at_once(self):
        running = self.serve(first=0.4, then=0.1, stub="pairs")
        self.assertTrue(self.wait(running))
        answers, busy = self.play(running, 200, 8)
        figures = client.measure(answers)
        # The server never answers early, and a busy machine may be late.
        self.assertGreaterEqual(min(figures["ttft_ms"]), 400)
        self.assertLess(client.percentile(figures["ttft_ms"], 0.5), 1200)
        # Four chunks, 0.6 s from the first to the last, for seven further tokens.
        self.assertAlmostEqual(client.percentile(figures["tpot_ms"], 0.5), 86, delta=30)
        self.assertAlmostEqual(figures["itl_ms"]["p50"], 200, delta=60)
        self.assertLess(figures["seconds"], 3)  # the streams ran side by side
        self.assertLess(busy, 1)

    def test_requests_are_sent_when_they_are_due_and_not_too_many_at_a_time(self):
        running = self.serve(first=0.05)
        self.assertTrue(self.wait(running))
        begun = time.perf_counter()
        answers, _ = self.play(running, 1, 1, at=0.2)
        self.assertGreaterEqual(answers[0].sent - begun, 0.2)
        asked = [workloads.Request([i], 1) for i in range(6)]
        begun = time.perf_counter()
        client.play(running.port, "m", asked, 30, in_flight=2)
        self.assertGreaterEqual(time.perf_counter() - begun, 0.15)

    def test_an_answer_that_does_not_come_is_given_up(self):
        running = self.serve(first=60)
        self.assertTrue(self.wait(running))
        answers, _ = client.play(running.port, "m", [workloads.Request([1], 1)], 0.2)
        self.assertIn("no answer within", answers[0].error)

    def test_a_server_that_is_never_healthy_or_dies(self):
        self.assertFalse(self.wait(self.serve(stub="sick"), 0.5))
        with self.assertRaisesRegex(server.Failed, "ended with status 1"):
            self.wait(self.serve(stub="die"))


class ProcessesTest(unittest.TestCase):
    def start(self, code, *arguments):
        process = subprocess.Popen([sys.executable, "-c", code, *arguments],
                                   stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(processes.end, process, 0)
        process.stdout.readline()
        return process

    def test_the_scheduler_threads_share_is_that_of_the_engine_cores_main_thread(self):
        idle = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', sys.argv[1], " \
               "'VLLM::EngineCore'])\nprint(flush=True)\nimport time\ntime.sleep(60)"
        busy = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n" \
               "while True: pass"
        process = self.start(idle, busy)
        before = processes.processor_seconds(process.pid)
        time.sleep(0.5)
        shares = processes.shares(before, processes.processor_seconds(process.pid))
        self.assertGreater(shares["scheduler"], 0.1)
        self.assertLess(shares["others"], shares["scheduler"])

    def test_busiest_of_the_others(self):
        before = {"at": 0.0, "scheduler": 1.0, "core": 2.0, "others": {1: 5.0, 2: 1.0}}
        after = {"at": 2.0, "scheduler": 2.0, "core": 4.0, "others": {1: 5.5, 2: 2.0, 3: 0.5}}
        self.assertEqual(processes.shares(before, after), {
            "scheduler": 0.5, "core": 1.0, "others": 1.0, "busiest": 0.5})

    def test_client_scheduler_core_and_others_have_processors_of_their_own(self):
        self.assertIsNone(processes.places(range(7)))
        pairs = lambda cpu: {cpu - (cpu + 1) % 2, cpu + cpu % 2}  # 3 and 4, 5 and 6
        with mock.patch.object(processes, "siblings", pairs):
            where = processes.places(range(3, 19))
        self.assertEqual(where, {"client": [3, 4], "scheduler": [5], "core": [7, 8],
                                 "others": list(range(9, 19))})
        with mock.patch.object(processes, "siblings", lambda cpu: set(range(3, 19))):
            self.assertEqual(processes.places(range(3, 19))["core"], [6, 7, 8])

    def test_a_processor_is_its_own_sibling(self):
        for cpu in os.sched_getaffinity(0):
            self.assertIn(cpu, processes.siblings(cpu))
        self.assertEqual(processes.siblings(12345), {12345})

    def test_all_threads_of_a_session_are_put_where_they_belong(self):
        mine = sorted(os.sched_getaffinity(0))
        code = "import threading, time\n" \
               "threading.Thread(target=time.sleep, args=(60,)).start()\n" \
               "print(flush=True)\n"
        where = {"scheduler": mine[:1], "core": mine[-1:], "others": mine[-1:]}
        with processes.only_on(mine[:1]):
            process = self.start(code)
        self.assertEqual(sorted(os.sched_getaffinity(0)), mine)
        self.assertEqual(os.sched_getaffinity(process.pid), {mine[0]})
        processes.place(process.pid, where)
        threads = os.listdir("/proc/%d/task" % process.pid)
        self.assertEqual([os.sched_getaffinity(int(t)) for t in threads], [{mine[-1]}] * 2)
        core = self.start(code + "time.sleep(60)", "VLLM::EngineCore")
        processes.place(core.pid, where)
        other, = set(os.listdir("/proc/%d/task" % core.pid)) - {str(core.pid)}
        self.assertEqual(os.sched_getaffinity(int(other)), {mine[-1]})
        self.assertEqual(os.sched_getaffinity(core.pid), {mine[0]})

    def test_all_of_a_session_ends_though_it_is_deaf(self):
        deaf = "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" \
               "if not os.fork(): os.setpgid(0, 0)\nelse: print(flush=True)\ntime.sleep(60)"
        process = self.start(deaf)
        self.assertEqual(len(processes.members(process.pid)), 2)
        begun = time.monotonic()
        self.assertFalse(processes.end(process, 0.2))
        self.assertLess(time.monotonic() - begun, 9)  # not by waiting for it
        self.assertEqual(processes.members(process.pid), [])
        polite = self.start("import time\nprint(flush=True)\ntime.sleep(60)")
        self.assertTrue(processes.end(polite, 10))


if __name__ == "__main__":
    unittest.main()
