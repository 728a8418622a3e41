"""A stock and an elastic engine that stay up beside each other and are asked in turns."""
import concurrent.futures
import time

from . import engine, gpu, probe, sides, workloads
from .server import Failed

SIDES = {"serve": sides.Http, "offline": sides.Offline, "invariant": sides.Http,
         "profile": sides.Probed}
RAMP = 0.25  # of a load that is probed: until it is steady
SETTLE = 0.1  # seconds between the turns, for what the last one leaves to do


class Duet:
    """The engines of one mode. They are launched at once: each has a KV cache of a given size, so
    that vLLM does not measure what memory is left for it."""

    def __init__(self, options, mode, kinds, limit):
        self.options, self.mode = options, mode
        self.sides = {kind: SIDES[mode](options, mode, kind, limit) for kind in kinds}

    def launch(self):
        for side in self.sides.values():
            side.launch()

    def is_ready(self):
        return all([side.is_ready() for side in self.sides.values()])

    def warm_up(self):
        for side in self.sides.values():
            side.warm_up()

    def capacity(self):
        """Requests/s that stock, if there, does at most."""
        return next(iter(self.sides.values())).measure_capacity()

    def play(self, number, order, capacity, watch):
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
        for who, step, piece in workloads.turns(workloads.plan(self.mode, self.options.tiny)):
            if who >= len(order):
                continue
            self._check()
            side = self.sides[order[who]]
            if isinstance(step, workloads.Rest):
                side.rest(step)
            else:
                try:
                    side.ask(self.mode, step, piece, capacity, prompts)
                except Failed:
                    self._check()  # says which one has ended, if one has
                    raise
                time.sleep(SETTLE / 20 if self.options.tiny else SETTLE)
        self._check()
        return {kind: dict(record(self.sides[kind], begun, watch), capacity=capacity)
                for kind in order}

    def _check(self):
        """Also the engine that rests must be there."""
        for kind, side in self.sides.items():
            try:
                side.engine.check()
            except Failed as failed:
                raise Failed("%s: %s" % (kind, failed), failed.log) from None


def end(duets, politely=True):
    """All engines at once."""
    ending = [side for duet in duets for side in duet.sides.values()]
    with concurrent.futures.ThreadPoolExecutor(len(ending) or 1) as pool:
        list(pool.map(lambda side: side.end(politely), ending))


def record(side, begun, watch=None):
    """What one engine's round, from that time on, leaves."""
    def since(at):
        return round(at - begun, 3)
    samples = watch.of(side.session) if watch else []
    during = [sample for sample in samples if sample[0] >= begun]
    found = {
        "startup_s": side.startup_s, "workloads": side.found,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(side.engine.started)),
        "cache_mib": engine.cache_mib(side.options, side.mode),
        "cache_tokens": engine.cache_tokens(side.log),
        "memory": {"at_ready_mib": gpu.at(samples, side.ready),
                   "phases": gpu.summarize(during, side.phases),
                   "trace": [(since(at), round(used, 1)) for at, used in during[::2]]},
        "phases": [[name, since(first), since(last)] for name, first, last in side.phases],
        "stats": [[moment, since(at), shown] for moment, at, shown in side.stats]}
    if isinstance(side, sides.Probed):
        _, first, last = side.phases[-1]
        found["probe"] = probe.read(side.probed, first + RAMP * (last - first))
    return found
