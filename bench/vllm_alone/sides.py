"""One engine, stock or elastic, that stays up while it is asked round after round: over HTTP, or
vLLM's LLM class in a process of its own."""
import contextlib
import json
import pathlib
import shutil
import subprocess
import time

from . import client, engine, processes, workloads
from .server import Engine, Failed, Server

HERE = pathlib.Path(__file__).resolve().parent
WORKLOAD_LIMIT = 120.0   # seconds for all answers of one workload, after the last was due
POLL = 0.01


class Limit:
    """How long the present start or round may take."""

    def __init__(self):
        self.end = float("inf")

    def set(self, seconds):
        self.end = time.monotonic() + seconds

    def left(self, most=float("inf")):
        seconds = min(self.end - time.monotonic(), most)
        if seconds <= 0:
            raise Failed("stopped: the time for it is over")
        return seconds


class Side:
    """What both ways have in common: the engine is launched, gets ready, is asked, and ends."""

    def __init__(self, options, mode, kind, limit):
        self.options, self.mode, self.kind, self.limit = options, mode, kind, limit
        self.elastic = kind == "elastic"
        self.log = options.results / "logs" / ("%s-%s.log" % (mode, kind))
        self.library_log = self.log.with_suffix(".kvcached.log")
        self.library_log.unlink(missing_ok=True)
        self.folder = options.work / "run" / ("%s-%s" % (mode, kind))
        shutil.rmtree(self.folder, ignore_errors=True)
        self.pool = self.folder / "pool"
        self.pool.mkdir(parents=True)
        self.env = engine.environment(options, mode, self.elastic, self.pool, self.library_log)
        self.ready = None
        self.last = time.time()  # when the last answer was there
        self.new_round()
        where = options.places
        self.engine = self.make_engine(where and where["core"] + where["others"])

    def new_round(self):
        self.phases, self.stats, self.found = [], [], {}

    def launch(self):
        self.engine.__enter__()

    @property
    def session(self):
        return self.engine.process.pid

    def is_ready(self):
        """To be asked again and again."""
        if self.ready is None:
            self.limit.left()
            self.ready = self.when_ready()
            if self.ready:
                self._require_elastic()
                self._place()
        return self.ready is not None

    def _place(self):
        if self.options.places:
            processes.place(self.session, self.options.places)

    def end(self, politely=True):
        if self.engine.process:
            self.engine.__exit__()

    @property
    def startup_s(self):
        return round(self.ready - self.engine.started, 3)

    def note_statistics(self, moment):
        """At moments when nothing is measured."""
        if self.elastic:
            shown = engine.stat(self.options, self.pool)
            self.stats.append([moment, time.time(), shown])
            return shown

    def _require_elastic(self):
        """An engine that goes on as stock would compare stock with itself."""
        shown = self.note_statistics("ready")
        if self.elastic and not engine.is_elastic(shown):
            raise Failed("the engine is not elastic: `kvcached stat` shows %s" % (
                engine.adapter_states(shown) or "no vLLM"), self.log)

    def warm_up(self):
        for step in workloads.plan("warm-up", self.options.tiny):
            self.ask("warm-up", step)
        self._place()

    def ask(self, plan, step, piece=0, capacity=None, number=0):
        """A piece of a plan's step, in the round of that number."""
        figures, begun, self.last = self.play(plan, step, piece, capacity, number)
        self.phases.append((step.name, begun, self.last))
        self.found.setdefault(step.name, []).append(figures)
        if piece >= step.pieces - 1:
            self.note_statistics("end of " + step.name)

    def rest(self, step):
        """From the end of what was asked before. Others may take longer, so that its end is not
        now."""
        end = self.last + step.seconds
        if end > time.time():
            time.sleep(self.limit.left(end - time.time()))
        self.phases.append((step.name, self.last, end))
        self.note_statistics("end of " + step.name)


class Http(Side):
    program = engine.VLLM

    def make_engine(self, cpus):
        return Server(lambda port: engine.server_command(self.options, self.mode, port,
                                                         self.program),
                      self.env, self.log, self.folder, cpus)

    def when_ready(self):
        """None: not yet. Where there are several API servers, the first has to be; all of them wait
        for the same engine core."""
        return time.time() if self.engine.is_healthy() else None

    def play(self, plan, step, piece, capacity, number):
        answers, busy, shares, begun, ended = self.send(
            workloads.requests(step, piece, capacity, number))
        return dict(client.measure(answers), client_busy=round(busy, 3),
                    processors=shares), begun, ended

    def send(self, requests, in_flight=None):
        """Answers without errors, the client's share of a processor, the engine's shares, when it
        began and ended."""
        limit = self.limit.left(max(r.at for r in requests) + WORKLOAD_LIMIT)
        session = self.engine.process.pid
        before, begun = processes.processor_seconds(session), time.time()
        answers, busy = client.play(self.engine.port, engine.MODEL_NAME, requests, limit, in_flight)
        after, ended = processes.processor_seconds(session), time.time()
        for answer in answers:
            client.read(answer)
        wrong = [answer.error for answer in answers if answer.error]
        if wrong:
            self.engine.check(wait=0.3)  # connections break a moment before it has ended
            self.limit.left()
            raise Failed("%s: %d of %d requests failed; the first: %s" % (
                self.kind, len(wrong), len(answers), wrong[0]), self.log)
        return answers, busy, processes.shares(before, after), begun, ended

    def measure_capacity(self):
        (step,) = workloads.plan("capacity", self.options.tiny)
        answers, *_ = self.send(workloads.requests(step), workloads.CAPACITY_IN_FLIGHT)
        return len(answers) / client.measure(answers)["seconds"]

    def forget_prefixes(self):
        """vLLM answers 200 also where it could not, and says so in its log."""
        known = self.log.stat().st_size
        status = self.engine.request("POST", "/reset_prefix_cache", self.limit.left(30))
        if status != 200:
            raise Failed("%s: POST /reset_prefix_cache answered %s" % (self.kind, status), self.log)
        with open(self.log, "rb") as log:
            log.seek(known)
            if b"Failed to reset prefix cache" in log.read():
                raise Failed("%s: the prefix cache was not reset" % self.kind, self.log)


class Probed(Http):
    """Notes what each step takes in our code."""
    program = (str(HERE / "probed_server.py"),)

    def make_engine(self, cpus):
        self.probed = self.folder / "probed"
        self.env["VLLM_ALONE_PROBED"] = str(self.probed)
        return super().make_engine(cpus)


class Offline(Side):
    """Told what to do by lines; the process answers by lines in a file."""

    def make_engine(self, cpus):
        job, self.answers, self.taken = self.folder / "job.json", self.folder / "answers", 0
        self.answers.touch()
        job.write_text(json.dumps({
            "llm": engine.llm_arguments(self.options, self.mode), "tiny": self.options.tiny,
            "answers": str(self.answers)}))
        return Engine([self.options.python, str(HERE / "offline_child.py"), str(job)], self.env,
                      self.log, self.folder, is_told=True, cpus=cpus)

    def end(self, politely=True):
        """It ends by itself when nothing more can come, unless something is wrong."""
        if politely and self.ready:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self.engine.process.stdin.close()
                self.engine.process.wait(10)
        super().end()

    def when_ready(self):
        self.engine.check()
        answer = self._next_answer()
        return answer and answer["ready"]

    def play(self, plan, step, piece, capacity, number):
        self.engine.tell(json.dumps({"plan": plan, "step": step.name, "piece": piece,
                                     "number": number}))
        found = self._answer(self.limit.left(WORKLOAD_LIMIT))
        return found["figures"], found["begun"], found["ended"]

    def _next_answer(self):
        """None: not yet."""
        lines = self.answers.read_text().rpartition("\n")[0].splitlines()
        if len(lines) <= self.taken:
            return None
        self.taken += 1
        return json.loads(lines[self.taken - 1])

    def _answer(self, limit):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if (answer := self._next_answer()) is not None:
                return answer
            self.engine.check(wait=POLL)
        self.limit.left()
        raise Failed("%s: no answer within %.0f s" % (self.kind, limit), self.log)
