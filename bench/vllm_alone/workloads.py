"""What is asked of the engine, in one place: shapes, bursts, steady load, rests, and the prompts
that they consist of. The same names and numbers give the same tokens in every process."""
import dataclasses
import random

SEED = 20240
TOKENS = range(5, 30000)  # prompts are made of these


@dataclasses.dataclass(frozen=True)
class Shape:
    """Lengths of a request in tokens; `prefix` of them are shared, by as many groups as `groups`."""
    prompt: int
    output: int
    prefix: int = 0
    groups: int = 1


@dataclasses.dataclass(frozen=True)
class Burst:
    """All requests at once; every repeat has prompts of its own."""
    name: str
    shape: Shape
    count: int
    repeats: int = 1


@dataclasses.dataclass(frozen=True)
class Steady:
    """Poisson arrivals for so many seconds, at a share of the measured capacity."""
    name: str
    shape: Shape
    load: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Rest:
    """Nothing is asked."""
    name: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class Request:
    prompt: list
    output: int
    at: float = 0.0  # seconds after the workload's begin


SHORT = Shape(prompt=512, output=128)
LONG = Shape(prompt=8192, output=128)
ONE = Shape(prompt=512, output=256)
SHARED = Shape(prompt=128, output=128, prefix=2048, groups=8)

# What comes before a rest is asked of both engines, then what comes after it: one engine rests while
# the other is asked (see duet.py). In each plan the last before the rest is a burst, so that memory
# falls from its height, and a burst finds the engine as idleness left it.
PLANS = {
    "serve": (
        Steady("steady 0.5", SHORT, load=0.5, seconds=4),
        Burst("one", ONE, 1, repeats=2),
        Burst("burst", SHORT, 192, repeats=2),
        Rest("idle", 12),
        Burst("burst after idle", SHORT, 192),
        Burst("long", LONG, 32),
        Steady("steady 0.8", SHORT, load=0.8, seconds=6),
        Steady("shared 0.5", SHARED, load=0.5, seconds=3),
    ),
    "offline": (
        Burst("long", LONG, 32),
        Burst("burst", SHORT, 192, repeats=2),
        Rest("idle", 12),
        Burst("burst after idle", SHORT, 192),
        Burst("one", ONE, 1, repeats=2),
        Burst("shared", SHARED, 192),
    ),
    # Over HTTP batches form by chance, so tokens are compared where the engine computes each
    # request alike in every batch. Speed is not of interest there.
    "invariant": (
        Burst("burst", SHORT, 128),
        Burst("long", LONG, 8),
        Burst("shared", SHARED, 64),
        Steady("steady 0.2", SHORT, load=0.2, seconds=4),
    ),
    "profile": (Steady("steady 0.8", SHORT, load=0.8, seconds=10),),
    "warm-up": (Burst("warm-up", Shape(512, 32), 192), Burst("warm-up of long", Shape(8192, 16), 4),
                Burst("warm-up of one", Shape(512, 32), 1)),
    "capacity": (Burst("capacity", SHORT, 384),),
}
# Requests/s that the loads of "invariant" refer to, instead of a capacity that was measured: every
# run of it must have the same requests.
INVARIANT_CAPACITY = 100.0
CAPACITY_IN_FLIGHT = 192  # requests that are kept in flight to find out how many a second it does


def plan(name, tiny=False):
    """The steps of a plan; `tiny`: with a fraction of the load, to try the benchmark itself."""
    return _tiny(PLANS[name]) if tiny else PLANS[name]


def _tiny(steps):
    def shape(s):
        return Shape(max(4, s.prompt // 64), max(4, s.output // 16), s.prefix // 64, s.groups)
    small = []
    for step in steps:
        if isinstance(step, Burst):
            step = dataclasses.replace(step, shape=shape(step.shape),
                                       count=max(1, step.count // 24), repeats=min(step.repeats, 2))
        elif isinstance(step, Steady):
            step = dataclasses.replace(step, shape=shape(step.shape), seconds=0.1)
        else:
            step = dataclasses.replace(step, seconds=0.1)
        small.append(step)
    return tuple(small)


def parts(steps):
    """A plan cut at its rests: (the rest that comes before, or None; steps)."""
    found = [(None, [])]
    for step in steps:
        if isinstance(step, Rest):
            found.append((step, []))
        else:
            found[-1][1].append(step)
    return found


def step_named(plan_name, name, tiny):
    return next(step for step in plan(plan_name, tiny) if step.name == name)


def _tokens(count, *name):
    return random.Random("/".join(map(str, (SEED,) + name))).choices(TOKENS, k=count)


def requests(step, repeat=0, capacity=None, number=0):
    """The requests of a burst's repeat or of a steady load, given the capacity in requests/s; each
    round, by its number, has prompts of its own."""
    if isinstance(step, Burst):
        arrivals = [0.0] * step.count
    else:
        arrivals, clock = [], random.Random("%d/%s/%d/arrivals" % (SEED, step.name, number))
        at = 0.0
        while at < step.seconds:
            arrivals.append(at)
            at += clock.expovariate(step.load * capacity)
    shape, name = step.shape, (step.name, number, repeat)
    shared = [_tokens(shape.prefix, *name, "prefix", group) for group in range(shape.groups)]
    return [Request(shared[i % shape.groups] + _tokens(shape.prompt, *name, i), shape.output, at)
            for i, at in enumerate(arrivals)]


def describe():
    """Everything above as plain data: results of other workloads must not be mixed with these."""
    return {"seed": SEED, "in flight": CAPACITY_IN_FLIGHT, "invariant": INVARIANT_CAPACITY,
            "plans": {name: [[type(s).__name__, dataclasses.asdict(s)] for s in steps]
                      for name, steps in PLANS.items()}}
