"""A stock and an elastic engine that stay up beside each other and are asked in turns."""
import contextlib
import time

from . import engine, gpu, probe, sides, workloads
from .server import Failed

SIDES = {"serve": sides.Http, "offline": sides.Offline, "invariant": sides.Http,
         "profile": sides.Probed}
SETTLE = 0.5  # seconds between the turns, for what the last one leaves to do


class Duet:
    """The engines of one mode, up within `with`. They start one after the other, stock first: it
    stays as it is when it has seen a load, so that the other one's profiling sees no memory come or
    go; and they share what is compiled on the way."""

    def __init__(self, options, device, mode, kinds, limit, say):
        self.options, self.device, self.mode, self.kinds = options, device, mode, kinds
        self.limit, self.say = limit, say
        self.sides = {}
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        with self.stack:
            self.device.wait_until_free(self.options.baseline)
            self.watch = self.stack.enter_context(gpu.Watch(self.device))
            for kind in self.kinds:
                side = SIDES[self.mode](self.options, self.mode, kind, self.watch, self.limit)
                self.sides[kind] = self.stack.enter_context(side)
                side.warm_up()
                self.say("%s-%s is ready after %.1f s" % (self.mode, kind, side.startup_s))
                time.sleep(self.settle)
            self.stack = self.stack.pop_all()
        return self

    def __exit__(self, *error):
        self.stack.__exit__(*error)

    @property
    def settle(self):
        return SETTLE / 50 if self.options.tiny else SETTLE

    def capacity(self):
        """Requests/s that the engine started first does at most."""
        return self.sides[self.kinds[0]].measure_capacity()

    def play(self, number, order, capacity):
        """One round: {kind: record}. Only one engine is asked at a time; while it is, the other
        rests. Times in the records count from the round's begin."""
        begun = time.time()
        # All rounds of "invariant" compare the same tokens, from the same state; in the others, each
        # has prompts that are new to the engine.
        prompts = 0 if self.mode == "invariant" else number
        for kind in order:
            self.sides[kind].new_round()
            if self.mode == "invariant":
                self.sides[kind].forget_prefixes()
            self.sides[kind].note_statistics("begin")
        for rest, steps in workloads.parts(workloads.plan(self.mode, self.options.tiny)):
            for kind in order:
                side = self.sides[kind]
                if rest:
                    side.rest(rest)
                for step in steps:
                    self._check()
                    side.ask(self.mode, step, capacity, prompts)
                time.sleep(self.settle)
        self._check()
        return {kind: dict(record(self.sides[kind], begun), capacity=capacity) for kind in order}

    def _check(self):
        """Also the engine that rests must be there."""
        for kind, side in self.sides.items():
            try:
                side.engine.check()
            except Failed as failed:
                raise Failed("%s: %s" % (kind, failed), failed.log) from None


def record(side, begun):
    """What one engine's round, from that time on, leaves."""
    def since(at):
        return round(at - begun, 3)
    samples, how = side.watch.of(side.kind)
    during = [sample for sample in samples if sample[0] >= begun]
    found = {
        "startup_s": side.startup_s, "workloads": side.found,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(side.engine.started)),
        "cache_mib": engine.cache_mib(side.log),
        "memory": {"by": how, "at_ready_mib": gpu.at(samples, side.ready),
                   "phases": gpu.summarize(during, side.phases),
                   "trace": [(since(at), round(used, 1)) for at, used in during[::2]]},
        "phases": [[name, since(first), since(last)] for name, first, last in side.phases],
        "stats": [[moment, since(at), shown] for moment, at, shown in side.stats]}
    if isinstance(side, sides.Probed):
        found["probe"] = probe.read(side.probed, begun)
    return found
