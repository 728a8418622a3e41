"""Run under the preloaded library and the simulated driver: bursts of new prompts, one after the other,
on an engine whose prefix cache keeps what came before. Prints how many stripes were mapped by the end
of each; `simulated_test.py` reads it."""
import json
import time

import simulated_engine
import worlds

BURSTS, REQUESTS, PROMPT, OUTPUT = 4, 30, 200, 60


def main():
    worlds.package.balloon.PATIENCE_IDLE = 60.0
    engine = worlds.Engine(simulated_engine.Library(), blocks=simulated_engine.BLOCKS, caching=True,
                           max_num_seqs=64, budget=8192)
    engine.balloon.woken = True  # or it would hand back all when it is idle
    found = []
    for burst in range(BURSTS):
        for i in range(REQUESTS):
            engine.balloon.arriving(PROMPT)
        time.sleep(0.1)  # on their way
        for i in range(REQUESTS):
            first = (burst * REQUESTS + i) * 1000
            engine.add("b%d/%d" % (burst, i), range(first, first + PROMPT), OUTPUT)
        while engine.busy():
            engine.step()
            engine.check()
        time.sleep(0.1)
        found.append(simulated_engine.shown()["grows"])
    print(json.dumps({"grows": found, "finished": sum(
        len(tokens) == OUTPUT for tokens in engine.outputs.values())}))


if __name__ == "__main__":
    main()
