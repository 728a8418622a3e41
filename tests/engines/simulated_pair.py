"""Run under the preloaded library and the simulated driver by `simulated_test.py`: one of two
engines of a pool. `simulated_pair.py greedy FILE` is full of requests until FILE is there;
`simulated_pair.py resting FILE` sleeps behind a full prefix cache until FILE is there;
`simulated_pair.py light FILE [N]` has one request at a time behind it until then, with N prompt tokens;
`simulated_pair.py guest [N]` has a burst of its own, N times as large. Prints one line of JSON."""
import json
import os
import sys
import time

import simulated_engine

STEP = 0.004  # seconds, as the GPU's part would take
TOKENS = 60


def greedy(stop):
    """As many requests as it may run, each of them long; others wait behind them."""
    engine = simulated_engine.worlds.Engine(
        simulated_engine.Library(), blocks=simulated_engine.BLOCKS, caching=False,
        max_num_seqs=64, budget=2048)
    number, steps, peak, least = 0, 0, 0, 1 << 60
    while not os.path.exists(stop):
        while len(engine.core.scheduler.waiting) < 8:
            number += 1
            engine.add("g%d" % number, range(number, number + 200), TOKENS)
        engine.step()
        time.sleep(STEP)
        steps += 1
        if steps % 16 == 0:
            engine.check()
            charged = simulated_engine.charged()
            peak = max(peak, charged)
            if steps == 96:
                print("full", flush=True)
            if steps > 96:
                least = min(least, charged)
    engine.run()
    engine.check()
    wrong = sum(len(tokens) != TOKENS for tokens in engine.outputs.values())
    return {"peak": peak, "least": least, "steps": steps, "wrong": wrong,
            "finished": len(engine.outputs)}


def filled():
    """An engine that had requests with prompts of their own, which its prefix cache knows."""
    engine = simulated_engine.worlds.Engine(
        simulated_engine.Library(), blocks=simulated_engine.BLOCKS, queued=True,
        max_num_seqs=64, budget=2048)
    for i in range(60):
        engine.add("r%d" % i, range(i * 1000, i * 1000 + 400), 40)
    engine.run()
    return engine


def light(stop, prompt="40"):
    """It is never idle, and has a use for very little."""
    engine = filled()
    kept, number = simulated_engine.charged(), 0
    print("full", flush=True)
    while not os.path.exists(stop):
        if not engine.busy():
            number += 1
            engine.add("l%d" % number, range(-number * 1000, int(prompt) - number * 1000), 60)
        engine.step()
        time.sleep(STEP)
    left = simulated_engine.charged()
    engine.run()
    engine.check()
    return {"kept": kept, "left": left, "requests": number,
            "wrong": sum(len(engine.outputs["l%d" % i]) != 60 for i in range(1, number + 1))}


def resting(stop):
    """Nothing more to do."""
    engine = filled()
    kept, wakes = simulated_engine.charged(), 0
    print("full", flush=True)
    while not os.path.exists(stop):
        wakes += engine.sleep(0.1)
        engine.check()
    left = simulated_engine.charged()
    return {"kept": kept, "left": left, "wakes": wakes}


def guest(bursts="1"):
    engine = simulated_engine.worlds.Engine(
        simulated_engine.Library(), blocks=simulated_engine.BLOCKS, caching=False,
        max_num_seqs=64, budget=2048)
    for i in range(40 * int(bursts)):
        engine.add("b%d" % i, range(i, i + 200), 60)
    peak = steps = 0
    while engine.busy():
        engine.step()
        time.sleep(STEP)
        steps += 1
        if steps % 8 == 0:
            peak = max(peak, simulated_engine.charged())
    engine.check()
    return {"peak": peak, "steps": steps,
            "finished": sum(len(tokens) == 60 for tokens in engine.outputs.values())}


if __name__ == "__main__":
    roles = {"greedy": greedy, "resting": resting, "light": light, "guest": guest}
    print(json.dumps(roles[sys.argv[1]](*sys.argv[2:])), flush=True)
