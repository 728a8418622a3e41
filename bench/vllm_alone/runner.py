"""Which runs there are, in which order, which are missing, and whether one still fits."""
import hashlib
import json
import os
import pathlib
import shutil
import time

from . import runs, workloads
from .server import Failed

MANIFEST = "manifest.json"
INVARIANT_ROUNDS = 2      # stock twice, to see whether it agrees with itself, and elastic twice
FIRST_ESTIMATE = 150.0    # seconds of a run, where no earlier one tells
FIRST_PREPARATION = 100.0
KINDS = ("stock", "elastic")
DONE, FAILED, UNFINISHED = 0, 1, 3


class Conflict(Exception):
    """The results folder does not fit; one line."""


def order(round_number):
    """Stock and elastic take turns in being first, so that a drift favours neither."""
    return KINDS if round_number % 2 == 1 else KINDS[::-1]


def pairs(modes, rounds):
    """(mode, round), one mode after the other: each needs preparation on every machine."""
    return [(mode, number) for mode in modes
            for number in range(1, 1 + (min(rounds, INVARIANT_ROUNDS) if mode == "invariant"
                                        else rounds))]


def name_of(mode, number, kind):
    return "%s-%02d-%s" % (mode, number, kind)


def read_records(results):
    """All complete runs in a folder, by name. A file that is no record of ours is left out."""
    found = {}
    for path in sorted(pathlib.Path(results).glob("*-[0-9][0-9]-*.json")):
        try:
            record = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and {"mode", "round", "kind", "workloads"} <= set(record):
            found[path.stem] = record
    return found


def write(path, data):
    """All of it or nothing: the next call believes what it finds."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data))
    part.rename(path)


def boot():
    try:
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


class Runner:
    def __init__(self, options, device, say):
        self.options, self.device, self.say = options, device, say
        self.begun = time.monotonic()
        self.call = "%s %d %s" % (time.strftime("%Y-%m-%dT%H:%M:%S"), os.getpid(), boot())
        self.machine = dict(device.describe(), processors=os.cpu_count())
        self.failures = 0
        self.library = hashlib.sha256(
            (options.build / "libkvcached.so").read_bytes()).hexdigest()[:16]
        options.baseline = device.used_mib()
        (options.results / "logs").mkdir(parents=True, exist_ok=True)
        self._check_manifest()

    def _check_manifest(self):
        """All runs of a folder are of one library, one model and the same workloads. Also names the
        engine, by what its start depends on."""
        o = self.options
        config = o.model / "config.json"
        now = {"library": self.library, "settings": o.setting, "tiny": o.tiny,
               "model": json.loads(config.read_text()) if config.exists() else str(o.model),
               "load_format": o.load_format, "workloads": workloads.describe()}
        now = json.loads(json.dumps(now))
        self.engine = hashlib.sha256(
            json.dumps([str(o.site), o.python, now["model"], o.load_format]).encode()).hexdigest()[:8]
        path = o.results / MANIFEST
        if not path.exists():
            write(path, now)
            return
        try:
            before = json.loads(path.read_text())
        except ValueError:
            raise Conflict("%s is damaged" % path) from None
        other = sorted(key for key in now if before.get(key) != now[key])
        if other:
            raise Conflict("%s holds runs with another %s; give another folder for --results" % (
                o.results, " and another ".join(other)))

    def left(self):
        return self.options.deadline - (time.monotonic() - self.begun)

    def estimate(self, mode):
        seconds = [r["seconds"] for r in read_records(self.options.results).values()
                   if r["mode"] == mode]
        return max(seconds, default=FIRST_ESTIMATE)

    # ---- What must precede ----

    def _prepared(self, mode):
        return self.options.work / ("prepared-%s-%s" % (mode, self.engine))

    def capacity(self):
        """Requests per second that stock does at most on a GPU of this name; None: not yet known.
        It is kept with the results: all runs get the same load."""
        path = self.options.results / "capacity.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        return known.get(str(self.machine["gpu"]))

    def _keep_capacity(self, value):
        path = self.options.results / "capacity.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        write(path, dict(known, **{str(self.machine["gpu"]): value}))

    def needs_preparation(self, mode):
        return not self._prepared(mode).exists() or (mode == "serve" and self.capacity() is None)

    def preparation_estimate(self, mode):
        return FIRST_PREPARATION if self.needs_preparation(mode) else 0.0

    def prepare(self, mode):
        """A start of stock that is not measured: kernels are compiled, files are read."""
        record = self._attempt("prepare-" + mode, mode, False, measure=False)
        if record is None:
            return False
        if mode == "serve" and self.capacity() is None:
            self._keep_capacity(record["capacity"])
        self._prepared(mode).touch()
        return True

    # ---- Runs ----

    def _attempt(self, name, mode, elastic, measure=True):
        limit = min(self.options.run_limit, self.left())
        self.say("%s begins" % name)
        begun = time.monotonic()
        failed = self.options.results / (name + ".failed.json")
        try:
            run = runs.Run(self.options, self.device, name, mode, elastic, limit)
            if mode == "offline":
                record = runs.offline(run, measure)
            else:
                record = runs.serve(run, self.capacity() if mode == "serve" else
                                    workloads.INVARIANT_CAPACITY, measure)
        except (Failed, OSError) as error:
            self.failures += 1
            write(failed, {"name": name, "error": str(error), "call": self.call,
                           "seconds": round(time.monotonic() - begun, 1)})
            self.say("%s FAILED: %s" % (name, error))
            return None
        finally:
            shutil.rmtree(self.options.work / "run", ignore_errors=True)
        failed.unlink(missing_ok=True)
        record["seconds"] = round(time.monotonic() - begun, 1)
        self.say("%s took %.0f s" % (name, record["seconds"]))
        return record

    def run_one(self, mode, number, kind):
        name = name_of(mode, number, kind)
        record = self._attempt(name, mode, kind == "elastic")
        if record is None:
            return
        record.update(mode=mode, round=number, kind=kind, machine=self.machine, call=self.call,
                      library=self.library, date=time.strftime("%Y-%m-%dT%H:%M:%S"))
        write(self.options.results / (name + ".json"), record)

    def run(self):
        """Goes on with what is missing, as far as the time reaches."""
        started, broken = False, set()
        for mode, number in pairs(self.options.modes, self.options.rounds):
            done = read_records(self.options.results)
            missing = [k for k in order(number) if name_of(mode, number, k) not in done]
            if not missing or mode in broken:
                continue
            each, before = self.estimate(mode), self.preparation_estimate(mode)
            # The two of a pair belong together; only where two never fit, they are torn apart.
            if self.left() < before + len(missing) * each and (
                    started or self.left() < before + each):
                continue
            started = True
            if self.needs_preparation(mode) and not self.prepare(mode):
                broken.add(mode)
                continue
            for kind in missing:
                if self.left() >= self.estimate(mode):
                    self.run_one(mode, number, kind)
        done = read_records(self.options.results)
        wanted = [name_of(m, n, k) for m, n in pairs(self.options.modes, self.options.rounds)
                  for k in KINDS]
        lacking = [name for name in wanted if name not in done]
        self.say("%d of %d runs are there%s" % (len(wanted) - len(lacking), len(wanted),
                                                "; call again" if lacking else ""))
        return FAILED if self.failures else UNFINISHED if lacking else DONE
