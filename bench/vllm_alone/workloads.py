"""What is asked of the engine, in one place: shapes, bursts, steady load, rests, and the prompts
that they consist of. The same names and numbers give the same tokens in every process."""
import collections
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
    """All requests at once; as many times as `pieces`, each with prompts of its own."""
    name: str
    shape: Shape
    count: int
    pieces: int = 1


@dataclasses.dataclass(frozen=True)
class Steady:
    """Poisson arrivals for so many seconds, at a share of the measured capacity."""
    name: str
    shape: Shape
    load: float
    seconds: float
    pieces: int = 1


@dataclasses.dataclass(frozen=True)
class Rest:
    """Nothing is asked."""
    name: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class AfterRest:
    """`step` after a rest of each engine, during which the other one is asked `meanwhile`: one piece
    of each of these."""
    rest: Rest
    step: Burst
    meanwhile: tuple


@dataclasses.dataclass(frozen=True)
class Request:
    prompt: list
    output: int
    at: float = 0.0  # seconds after the workload's begin


SHORT = Shape(prompt=512, output=128)
LONG = Shape(prompt=8192, output=128)
ONE = Shape(prompt=512, output=128)
# The median prompt of bench/demo's conversations. A step with one prompt of 512 tokens among those that
# generate is in no CUDA graph (they end at 512): with 8 billion parameters the host launches for 13 to
# 25 ms what the GPU does in 12, so that the host's noise is all that is measured.
USUAL = Shape(prompt=1024, output=128)
SHARED = Shape(prompt=128, output=128, prefix=2048, groups=8)

BURST, LONG_ONES = Burst("burst", SHORT, 192), Burst("long", LONG, 16)

PLANS = {
    # Where a rest lies between the two pieces of a pair, there is what the GPU bounds, and most
    # pieces have what the machine's noise is felt in most.
    "serve": (
        BURST,
        Burst("one", ONE, 1, pieces=4),
        LONG_ONES,
        Steady("shared 1.0", SHARED, load=1.0, seconds=3, pieces=3),
        Steady("steady 0.8", USUAL, load=0.8, seconds=4, pieces=3),
        Steady("steady 0.5", USUAL, load=0.5, seconds=5, pieces=3),
        AfterRest(Rest("idle", 10.5), Burst("burst after idle", SHORT, 192), meanwhile=(
            BURST, LONG_ONES)),
    ),
    # An idle engine is back at its least within 10 s.
    "offline": (
        Burst("burst", SHORT, 192, pieces=6),
        Burst("one", ONE, 1, pieces=4),
        Burst("shared", SHARED, 192, pieces=2),
        AfterRest(Rest("idle", 10.5), Burst("burst after idle", SHORT, 192), meanwhile=(
            Burst("long", LONG, 16),)),
    ),
    # Over HTTP batches form by chance, so tokens are compared where the engine computes each
    # request alike in every batch. Speed is not of interest there.
    "invariant": (
        Burst("burst", SHORT, 128),
        Burst("long", LONG, 8),
        Burst("shared", SHARED, 64),
        Steady("steady 0.2", SHORT, load=0.2, seconds=4),
    ),
    "profile": (Steady("steady 0.8", USUAL, load=0.8, seconds=16),),
    "warm-up": (Burst("warm-up", Shape(512, 32), 192), Burst("warm-up of long", Shape(8192, 16), 4),
                Burst("warm-up of one", Shape(512, 32), 1)),
    "capacity": (Burst("capacity", USUAL, 256),),
}
# Requests/s that the loads of "invariant" refer to, instead of a capacity that was measured: every
# run of it must have the same requests.
INVARIANT_CAPACITY = 100.0
# Requests that are kept in flight to find out how many a second it does; the cache of an 8B model has
# room for 142.
CAPACITY_IN_FLIGHT = 128


def plan(name, tiny=False):
    """The steps of a plan; `tiny`: with a fraction of the load, to try the benchmark itself."""
    return _tiny(PLANS[name]) if tiny else PLANS[name]


def _tiny(steps):
    return tuple(_tiny_step(step) for step in steps)


def _tiny_step(step):
    if isinstance(step, AfterRest):
        return AfterRest(_tiny_step(step.rest), _tiny_step(step.step), _tiny(step.meanwhile))
    if isinstance(step, Rest):
        return dataclasses.replace(step, seconds=0.1)
    shape = step.shape
    small = Shape(max(4, shape.prompt // 64), max(4, shape.output // 16), shape.prefix // 64,
                  shape.groups)
    if isinstance(step, Steady):
        return dataclasses.replace(step, shape=small, seconds=0.1)
    return dataclasses.replace(step, shape=small, count=max(1, step.count // 24),
                               pieces=min(step.pieces, 2))


def turns(steps):
    """Who is asked for which piece of which step, in order: (0 or 1, step, piece). Pieces of one
    number are a pair, next to each other; from pair to pair the order turns: ABBA. Where a step comes
    again, its pieces are numbered on."""
    known = collections.Counter()
    for who, step in _turns(steps):
        yield who, step, known[who, step.name]
        known[who, step.name] += 1


def _turns(steps):
    for step in steps:
        if isinstance(step, AfterRest):
            for resting, other in ((0, 1), (1, 0)):
                yield from ((other, meanwhile) for meanwhile in step.meanwhile)
                yield from ((resting, step.rest), (resting, step.step))
            continue
        for piece in range(step.pieces):
            yield from ((who, step) for who in ((0, 1) if piece % 2 == 0 else (1, 0)))


def asked(steps):
    """All steps where something is asked."""
    for step in steps:
        yield from (*step.meanwhile, step.step) if isinstance(step, AfterRest) else (step,)


def step_named(plan_name, name, tiny):
    return next(step for step in asked(plan(plan_name, tiny)) if step.name == name)


def _tokens(count, *name):
    return random.Random("/".join(map(str, (SEED,) + name))).choices(TOKENS, k=count)


def requests(step, piece=0, capacity=None, number=0):
    """The requests of a burst's piece or of a steady load, given the capacity in requests/s; each
    round, by its number, has prompts of its own."""
    if isinstance(step, Burst):
        arrivals = [0.0] * step.count
    else:
        arrivals, clock = [], random.Random("%d/%s/%d/arrivals" % (SEED, step.name, number))
        at = 0.0
        while at < step.seconds:
            arrivals.append(at)
            at += clock.expovariate(step.load * capacity)
    shape, name = step.shape, (step.name, number, piece)
    shared = [_tokens(shape.prefix, *name, "prefix", group) for group in range(shape.groups)]
    return [Request(shared[i % shape.groups] + _tokens(shape.prompt, *name, i), shape.output, at)
            for i, at in enumerate(arrivals)]


def describe():
    """Everything above as plain data: results of other workloads must not be mixed with these."""
    return {"seed": SEED, "in flight": CAPACITY_IN_FLIGHT, "invariant": INVARIANT_CAPACITY,
            "plans": {name: [[type(s).__name__, dataclasses.asdict(s)] for s in steps]
                      for name, steps in PLANS.items()}}
