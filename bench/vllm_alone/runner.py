"""Which rounds there are, in which order, which are missing, and whether one still fits."""
import hashlib
import json
import os
import pathlib
import shutil
import time

from . import duet, engine, gpu, processes, sides, workloads
from .server import Failed

MANIFEST, STARTS = "manifest.json", "starts.json"
KINDS = ("stock", "elastic")
# Modes whose engines are up at the same time. The time may end before the last ones are played.
GROUPS = (("serve", "profile", "offline"), ("start",), ("invariant",))
MODES = tuple(mode for group in GROUPS for mode in group)
# Seconds where no earlier round tells: until the engines of a group are up, and of a round.
FIRST_STARTS = 150.0
FIRST_ROUND = {"serve": 80.0, "offline": 50.0, "profile": 20.0, "start": 60.0, "invariant": 40.0}
WARMING = 15.0            # for warming up a mode's engines, and their capacity
ENDING = 15.0             # for the engines' end
POLL = 0.02
TAIL = 30                 # lines of a log that tell why an engine failed
DONE, FAILED, UNFINISHED = 0, 1, 3


class Conflict(Exception):
    """The results folder does not fit; one line."""


def order_of(round_number):
    """Stock and elastic take turns in being first, so that a drift favours neither."""
    return KINDS if round_number % 2 == 1 else KINDS[::-1]


def kinds_of(mode):
    return KINDS[1:] if mode == "profile" else KINDS


def rounds_of(mode, rounds):
    """Twice stock for "invariant", to see whether it agrees with itself."""
    return range(1, 1 + min(rounds, {"invariant": 2, "profile": 1}.get(mode, rounds)))


def name_of(mode, number, kind):
    return "%s-%02d-%s" % (mode, number, kind)


def read_records(results):
    """All complete records in a folder, by name. A file that is no record of ours is left out."""
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


def read_starts(results):
    """One entry for each time that engines were brought up: seconds until they were ready, and
    how they ended."""
    try:
        return json.loads((pathlib.Path(results) / STARTS).read_text())
    except (OSError, ValueError):
        return []


def tail(log):
    """The last lines of a log, and of the library's that lies beside it."""
    lines = []
    for path in (log, log.with_suffix(".kvcached.log")) if log else ():
        if path.exists():
            lines += path.read_text(errors="replace").splitlines()[-TAIL:]
    return lines


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
        cpus = os.sched_getaffinity(0)
        options.places = processes.places(cpus) if options.pin else None
        if options.places:
            os.sched_setaffinity(0, options.places["client"])
        self.machine = dict(device.describe(), processors=len(cpus), places=options.places)
        self.failures = 0
        self.limit = sides.Limit()
        self.library = hashlib.sha256(
            (options.build / "libkvcached.so").read_bytes()).hexdigest()[:16]
        options.baseline = device.used_mib()
        (options.results / "logs").mkdir(parents=True, exist_ok=True)
        self._check_manifest()

    def _check_manifest(self):
        """All records of a folder are of one library, one model and the same workloads. Also names
        the file that says that all is compiled here that such a server compiles at its start."""
        o = self.options
        config = o.model / "config.json"
        now = {"library": self.library, "settings": o.setting, "tiny": o.tiny,
               "model": json.loads(config.read_text()) if config.exists() else str(o.model),
               "load_format": o.load_format, "kv_gib": o.kv_gib, "pin": o.pin,
               "api_servers": engine.API_SERVERS, "workloads": workloads.describe()}
        now = json.loads(json.dumps(now))
        key = json.dumps([str(o.site), o.python, now["model"], o.load_format])
        self.compiled = o.work / ("compiled-" + hashlib.sha256(key.encode()).hexdigest()[:8])
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
            raise Conflict("%s holds rounds with another %s; give another folder for --results" % (
                o.results, " and another ".join(other)))

    def left(self):
        return self.options.deadline - (time.monotonic() - self.begun)

    def within(self, reserve=0.0):
        """Limits what comes next, which must leave so many seconds."""
        self.limit.set(min(self.options.run_limit, self.left() - reserve))

    def round_estimate(self, mode):
        seconds = [r["seconds"] for r in read_records(self.options.results).values()
                   if r["mode"] == mode]
        return max(seconds, default=FIRST_ROUND[mode])

    def starts_estimate(self):
        """By starts on this machine: on another one nothing is compiled yet."""
        return max((s["seconds"] for s in read_starts(self.options.results)
                    if s["boot"] == boot() and s["seconds"]), default=FIRST_STARTS)

    def missing(self, mode):
        """Rounds that lack a record: both engines play them, again if need be."""
        done = read_records(self.options.results)
        return [number for number in rounds_of(mode, self.options.rounds)
                if any(name_of(mode, number, kind) not in done for kind in kinds_of(mode))]

    # ---- Capacity ----

    def _capacities(self):
        path = self.options.results / "capacity.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def capacity(self, mode, engines):
        """Requests/s that steady loads refer to. What stock did at most on a GPU of this name is
        kept with the results, so that all rounds get the same load."""
        if mode == "invariant":
            return workloads.INVARIANT_CAPACITY
        if mode == "offline":
            return None
        known, gpu_name = self._capacities(), str(self.machine["gpu"])
        if gpu_name in known:
            return known[gpu_name]
        found = engines.capacity()
        self.say("capacity: %.1f requests/s" % found)
        if mode == "serve":
            write(self.options.results / "capacity.json", dict(known, **{gpu_name: found}))
        return found

    # ---- Rounds ----

    def _keep(self, mode, number, kind, record, begun):
        record.update(mode=mode, round=number, kind=kind, machine=self.machine, call=self.call,
                      library=self.library, date=time.strftime("%Y-%m-%dT%H:%M:%S"),
                      seconds=round(time.monotonic() - begun, 1))
        write(self.options.results / (name_of(mode, number, kind) + ".json"), record)

    def play(self, missing):
        """Rounds of a group's modes, as many as there is time for, on engines that all start at
        once. Nothing is asked until all are ready."""
        begun, seconds = time.monotonic(), None
        self.within(ENDING)
        self.device.wait_until_free(self.options.baseline)
        duets = {mode: duet.Duet(self.options, mode, kinds_of(mode), self.limit)
                 for mode in missing}
        up, broken = dict(duets), True
        try:
            with gpu.Watch(self.device) as watch:
                for engines in duets.values():
                    engines.launch()
                    watch.sessions += [side.session for side in engines.sides.values()]
                self._wait(up)
                seconds = round(time.monotonic() - begun, 1)
                for mode, engines in list(up.items()):
                    if self._succeeds(mode, self.rounds, mode, engines, missing[mode], watch):
                        self._forgive(mode)
                    else:
                        duet.end([up.pop(mode)], politely=False)
            broken = False
        finally:
            duet.end(up.values(), politely=not broken)
            for mode, engines in duets.items():
                self._note_starts(mode, engines.sides, seconds)

    def _wait(self, up):
        """Until all are ready; a mode whose engines fail leaves `up`."""
        waiting = dict(up)
        while waiting:
            for mode, engines in list(waiting.items()):
                ready = []
                if not self._succeeds(mode, lambda: ready.append(engines.is_ready())):
                    duet.end([up.pop(mode)], politely=False)
                elif not ready[0]:
                    continue
                del waiting[mode]
            time.sleep(POLL)
        for mode, engines in up.items():
            self.say("%s: ready after %s" % (mode, ", ".join(
                "%.1f s (%s)" % (side.startup_s, kind) for kind, side in engines.sides.items())))

    def rounds(self, mode, engines, missing, watch):
        if self.left() < WARMING + self.round_estimate(mode) + ENDING:
            return
        self.within(ENDING)
        engines.warm_up()
        capacity = self.capacity(mode, engines)
        if mode == "serve":
            self.compiled.touch()
        for number in missing:
            if self.left() < self.round_estimate(mode) + ENDING:
                return
            self.within(ENDING)
            at = time.monotonic()
            order = [kind for kind in order_of(number) if kind in kinds_of(mode)]
            for kind, record in engines.play(number, order, capacity, watch).items():
                self._keep(mode, number, kind, record, at)
            self.say("%s-%02d took %.0f s" % (mode, number, time.monotonic() - at))

    def _note_starts(self, mode, started, seconds):
        """`seconds` until all of the group were ready; None where one of these was not."""
        all_ready = all(side.ready for side in started.values())
        entry = {"mode": mode, "call": self.call, "boot": boot(),
                 "seconds": seconds if all_ready else None,
                 "startup_s": {kind: side.startup_s for kind, side in started.items()
                               if side.ready},
                 "killed": [kind for kind, side in started.items()
                            if not side.engine.ended_when_asked]}
        write(self.options.results / STARTS, read_starts(self.options.results) + [entry])

    def start(self, mode, missing):
        """Starts alone, each ended as soon as it is ready. The first on a machine, where all is
        compiled, counts for nobody."""
        if not self.compiled.exists():
            for kind in KINDS:
                self._start(kind)
            self.compiled.touch()
        for number in missing:
            if self.left() < self.round_estimate(mode):
                return
            at = time.monotonic()
            found = {kind: self._start(kind) for kind in order_of(number)}
            for kind, record in found.items():
                self._keep(mode, number, kind, record, at)
            self.say("start-%02d: stock %.2f s, elastic %.2f s" % (
                number, *(found[kind]["startup_s"] for kind in KINDS)))

    def _start(self, kind):
        self.device.wait_until_free(self.options.baseline)
        self.within()
        side = sides.Http(self.options, "start", kind, self.limit)
        try:
            side.launch()
            while not side.is_ready():
                time.sleep(POLL)
            return duet.record(side, side.engine.started)
        finally:
            side.end()
            self._note_starts("start", {kind: side}, side.ready and side.startup_s)

    def run(self):
        """Goes on with what is missing, as far as the time reaches."""
        for group in GROUPS:
            missing = {mode: found for mode in group
                       if mode in self.options.modes and (found := self.missing(mode))}
            needed = self.starts_estimate() + WARMING + ENDING + min(
                map(self.round_estimate, missing), default=0.0)
            if not missing or self.left() < needed:
                continue
            if "start" in missing:
                if self._succeeds("start", self.start, "start", missing["start"]):
                    self._forgive("start")
            else:
                self.play(missing)
            shutil.rmtree(self.options.work / "run", ignore_errors=True)
        lacking = {mode: missing for mode in self.options.modes if (missing := self.missing(mode))}
        self.say("all rounds are there" if not lacking else "call again: %s" % ", ".join(
            "%s lacks %d rounds" % (mode, len(missing)) for mode, missing in lacking.items()))
        return FAILED if self.failures else UNFINISHED if lacking else DONE

    def _forgive(self, mode):
        (self.options.results / (mode + ".failed.json")).unlink(missing_ok=True)

    def _succeeds(self, mode, action, *arguments):
        """What fails is told, and kept, and ends only its own mode."""
        try:
            action(*arguments)
            return True
        except (Failed, OSError) as error:
            if self.left() <= ENDING:  # nobody is to blame
                self.say("%s: the call's time is over" % mode)
                return False
            self.failures += 1
            lines = tail(getattr(error, "log", None))
            write(self.options.results / (mode + ".failed.json"), {
                "name": mode, "error": str(error), "call": self.call, "tail": lines})
            self.say("%s FAILED: %s" % (mode, error))
            print("\n".join("    | " + line for line in lines), flush=True)
            return False
