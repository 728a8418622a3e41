"""One run: an engine is started, one plan is asked of it, it is ended. Answers a record."""
import contextlib
import json
import pathlib
import shutil
import subprocess
import time

from . import client, engine, gpu, processes, spy, workloads
from .server import Engine, Failed, Server

HERE = pathlib.Path(__file__).resolve().parent
MODES = ("serve", "offline", "invariant")
START_LIMIT = 300.0      # seconds for an engine to be ready: compiling takes its time
WORKLOAD_LIMIT = 120.0   # seconds for all answers of one workload, after the last was due


class Run:
    """What the modes have in common: files, environment, memory, statistics, the time that is left."""

    def __init__(self, options, device, name, mode, elastic, limit):
        self.options, self.device, self.mode, self.elastic = options, device, mode, elastic
        self.end = time.monotonic() + limit
        self.log = options.results / "logs" / (name + ".log")
        self.library_log = self.log.with_suffix(".kvcached.log")
        self.library_log.unlink(missing_ok=True)
        self.folder = options.work / "run"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.pool = self.folder / "pool"
        self.pool.mkdir(parents=True)
        self.phases, self.stats, self.ready = [], [], None
        self.env = engine.environment(options, mode, elastic, self.pool, self.library_log)

    def left(self, most=1e9):
        seconds = min(self.end - time.monotonic(), most)
        if seconds <= 0:
            raise Failed("stopped: the run's time is over")
        return seconds

    def note_statistics(self, moment):
        """At moments when nothing is measured."""
        if self.elastic:
            shown = engine.stat(self.options, self.pool)
            self.stats.append([moment, time.time(), shown])
            return shown

    def require_elastic(self):
        """A run whose engine goes on as stock would compare stock with itself."""
        shown = self.note_statistics("ready")
        if self.elastic and not engine.is_elastic(shown):
            raise Failed("the engine is not elastic: `kvcached stat` shows %s" % (
                engine.adapter_states(shown) or "no vLLM"))

    @contextlib.contextmanager
    def running(self, started):
        """Around a started engine: memory is sampled, and what ends it is recorded."""
        self.device.wait_until_free(self.options.baseline)
        with gpu.Watch(self.device) as watch, started:
            yield
        self.started, self.samples = started.started, watch.samples
        self.asked = started.ended_when_asked

    def record(self, found, **more):
        """Times in it count from the engine's start."""
        def since(at):
            return round(at - self.started, 3)
        return dict(
            more, startup_s=since(self.ready), workloads=found, ended_when_asked=self.asked,
            memory={"at_ready_mib": gpu.at(self.samples, self.ready),
                    "phases": gpu.summarize(self.samples, self.phases),
                    "trace": [(since(at), round(used, 1)) for at, used in self.samples[::4]]},
            phases=[[name, since(begin), since(end)] for name, begin, end in self.phases],
            stats=[[moment, since(at), shown] for moment, at, shown in self.stats])


# ---- Offline -----------------------------------------------------------------------------------


def offline(run, measure=True):
    job, result, marks = (run.folder / name for name in ("job.json", "result.json", "marks"))
    marks.touch()
    job.write_text(json.dumps({
        "llm": engine.llm_arguments(run.options), "tiny": run.options.tiny, "measure": measure,
        "marks": str(marks), "result": str(result)}))
    command = [run.options.python, str(HERE / "offline_child.py"), str(job)]
    child = Engine(command, run.env, run.log, run.folder)
    followed = 0
    with run.running(child):
        while not result.exists():
            run.left()
            if run.ready is None and time.time() - child.started > START_LIMIT:
                raise Failed("not ready within %.0f s; see %s" % (START_LIMIT, run.log))
            if child.process.poll() is not None and not result.exists():
                child.check()
            followed = _follow(run, marks, followed)
            time.sleep(0.05)
        _follow(run, marks, followed)
        # It is about to end by itself.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(15)
    figures = json.loads(result.read_text())
    return run.record(figures["workloads"], blocks=figures["blocks"])


def _follow(run, marks, followed):
    """Takes in what the child has noted beyond so many lines; answers how many there are."""
    lines = marks.read_text().rpartition("\n")[0].splitlines()
    for at, what, name in map(json.loads, lines[followed:]):
        if what == "ready":
            run.ready = at
            run.require_elastic()
        elif what == "begin":
            run.phases.append((name, at, at))
        else:
            run.phases[-1] = (name, run.phases[-1][1], at)
            run.note_statistics("end of " + name)
    return len(lines)


# ---- Over HTTP ---------------------------------------------------------------------------------


def serve(run, capacity, measure=True):
    """With `measure` false: only what must precede the measured runs; a missing capacity is found."""
    server = Server(lambda port: engine.server_command(run.options, port), run.env, run.log,
                    run.folder)
    found = {}
    with run.running(server):
        server.wait_until_healthy(run.left(START_LIMIT))
        run.ready = time.time()
        run.require_elastic()
        for step in workloads.plan("warm-up", run.options.tiny):
            _play(run, server, workloads.requests(step))
        if capacity is None:
            capacity = _capacity(run, server)
        for step in workloads.plan(run.mode, run.options.tiny) if measure else ():
            if isinstance(step, workloads.Rest):
                _rest(run, step)
            else:
                found[step.name] = _step(run, server, step, capacity)
        spied = _spy(run, server, capacity) if measure and run.options.py_spy else None
    return run.record(found, capacity=capacity, spy=spied)


def _play(run, server, requests, in_flight=None, name=None):
    """Answers without errors, the client's share of a processor, and the engine's shares."""
    limit = run.left(max(r.at for r in requests) + WORKLOAD_LIMIT)
    before, begun = processes.processor_seconds(server.process.pid), time.time()
    answers, busy = client.play(server.port, engine.MODEL_NAME, requests, limit, in_flight)
    after = processes.processor_seconds(server.process.pid)
    if name:
        run.phases.append((name, begun, time.time()))
    for answer in answers:
        client.read(answer)
    wrong = [answer.error for answer in answers if answer.error]
    if wrong:
        server.check(wait=0.3)  # connections break a moment before it has ended
        run.left()
        raise Failed("%d of %d requests failed; the first: %s" % (
            len(wrong), len(answers), wrong[0]))
    return answers, busy, processes.shares(before, after)


def _capacity(run, server):
    (step,) = workloads.plan("capacity", run.options.tiny)
    answers, _, _ = _play(run, server, workloads.requests(step), workloads.CAPACITY_IN_FLIGHT)
    return len(answers) / client.measure(answers)["seconds"]


def _step(run, server, step, capacity):
    repeats = []
    for repeat in range(getattr(step, "repeats", 1)):
        requests = workloads.requests(step, repeat, capacity)
        answers, busy, shares = _play(run, server, requests, name=step.name)
        repeats.append(dict(client.measure(answers), client_busy=round(busy, 3),
                            processors=shares))
    run.note_statistics("end of " + step.name)
    return repeats


def _rest(run, step):
    """From the end of what was asked before."""
    begun = run.phases[-1][2] if run.phases else time.time()
    time.sleep(run.left(max(0.001, begun + step.seconds - time.time())))
    run.phases.append((step.name, begun, time.time()))
    run.note_statistics("end of " + step.name)


def _spy(run, server, capacity):
    """A steady load again, under py-spy."""
    core, tool = processes.engine_core(server.process.pid), spy.find()
    if not core or not tool:
        return {"missing": "no py-spy in PATH" if core else "no engine core to look at"}
    output = run.log.with_suffix(".spy")
    step = next(s for s in workloads.plan(run.mode, run.options.tiny)
                if isinstance(s, workloads.Steady))
    spying = spy.start(tool, core.pid, max(1, int(step.seconds)), output)
    try:
        _play(run, server, workloads.requests(step, 0, capacity))
        spying.wait(30)
    finally:
        spying.kill()
        spying.wait()
    return spy.read(output.read_text(errors="replace")) if output.exists() else {
        "missing": "py-spy wrote nothing"}
