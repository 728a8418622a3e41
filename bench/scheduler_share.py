#!/usr/bin/env python3
"""What the vLLM adapter costs vLLM's scheduler thread, step by step.

    bench/scheduler_share.py --site SITE [--build build] [--simulated] [--cold] [--rounds 3]
                             [--case N] [--json FILE]

vLLM's own scheduler and block pool (the Python sources unpacked in SITE) run on the built library,
with a model that answers at once. Counted is the time within our functions and, since ours stands in
its place, within the free queue; beside it, the same for stock's queue. The library maps on the GPU,
or with --simulated on the simulated one. Alone in its process the scheduler finds all of its own in
the processor's caches; with --cold they are filled with something else before each step, as a model
runner does it.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCKS = 20000
# Name, prefix cache, requests, tokens of a prompt, tokens generated, requests that come in a step
# (0: all at once), tokens before the prompt that an eighth of the requests share.
CASES = (
    ("192 requests, 512 + 128, prefix cache", True, 192, 512, 128, 0, 0),
    ("192 requests, 512 + 128", False, 192, 512, 128, 0, 0),
    ("1 request, 512 + 512, prefix cache", True, 1, 512, 512, 0, 0),
    ("2000 requests in line, 256 + 16, prefix cache", True, 2000, 256, 16, 0, 0),
    ("3 requests in 2 steps, 512 + 128, prefix cache", True, 800, 512, 128, 1.5, 0),
    ("3 requests in 2 steps, 512 + 128", False, 800, 512, 128, 1.5, 0),
    ("1 request in 3 steps, 2048 shared + 128 + 128", True, 300, 128, 128, 1 / 3, 2048),
)
QUEUE = ("popleft_n", "popleft", "remove", "append", "append_n", "prepend_n")
COLD = (bytearray(16 << 20), bytes(16 << 20))  # more than a core has of its own
GPU_PAUSE = 0.003  # between two steps, as a GPU would take: the agent's thread works meanwhile


def timed(owner, names, spent):
    for name in names:
        original = getattr(owner, name, None)
        if original is None:
            continue

        def wrapper(*args, original=original):
            begin = time.perf_counter_ns()
            try:
                return original(*args)
            finally:
                spent[0] += time.perf_counter_ns() - begin
        setattr(owner, name, wrapper)


def child(case, elastic, cold):
    """One engine, one load. Prints the microseconds of each step, and of the whole steps."""
    sys.path.insert(0, str(ROOT / "tests" / "engines"))
    from doubles import vllm_engine
    vllm_engine.widen(8, 128)
    import simulated_engine
    import worlds
    worlds.package.balloon.PAUSE = worlds.PAUSE
    _, caching, requests, prompt, out, a_step, shared = CASES[case]
    library = simulated_engine.Library() if elastic else worlds.Library()
    library.off = not elastic
    engine = worlds.Engine(library, blocks=BLOCKS, caching=caching, async_scheduling=True,
                           max_num_seqs=256, budget=8192, max_model_len=4096)
    engine.add("first", range(100), 4)
    engine.run()
    spent = [0]
    timed(engine.pool.free_block_queue, QUEUE, spent)
    if elastic:
        assert engine.balloon is not None, library.states
        timed(engine.balloon, ("glance", "rests", "settle"), spent)
        timed(worlds.adapter, ("prepare",), spent)
        engine.core.scheduler._kvcached = None  # until it is prepared, which takes what is timed
        engine.core._kvcached_rests = engine.balloon.rests
    ours, whole, added = [], [], 0
    while added < requests or engine.busy():
        due = min(requests, 1 + int(len(ours) * a_step) if a_step else requests)
        for i in range(added, due):
            group, own = 1_000_000 * (1 + i % 8), i * 7919
            engine.add("r%d" % i, [*range(group, group + shared), *range(own, own + prompt)], out)
        added = due
        if cold:
            memoryview(COLD[0])[:] = COLD[1]
        before, begin = spent[0], time.perf_counter_ns()
        engine.step()
        whole.append((time.perf_counter_ns() - begin) / 1e3)
        ours.append((spent[0] - before) / 1e3)
        del engine.steps[:]
        time.sleep(GPU_PAUSE)
    print(json.dumps({"ours": ours, "whole": whole}))


def run(options, case, elastic):
    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ, VLLM_SITE=str(options.site), KVCACHED_BUILD=str(options.build),
                   KVCACHED_DIR=folder + "/pool", SIM_GPU_DIR=folder + "/gpu",
                   SIM_GPU_MEMORY="6GiB")
        os.mkdir(folder + "/pool")
        os.mkdir(folder + "/gpu")
        if elastic:
            env["LD_PRELOAD"] = str(options.build / "libkvcached.so")
            if options.simulated:
                env["LD_LIBRARY_PATH"] = str(options.build / "sim")
        done = subprocess.run([sys.executable, "-B", __file__, "--child", str(case),
                               str(int(elastic)), str(int(options.cold))],
                              env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    return json.loads(done.stdout.splitlines()[-1])


def figures(runs):
    ours = sorted(us for run in runs for us in run["ours"])
    whole = sorted(us for run in runs for us in run["whole"])
    return {"steps": len(ours), "median_us": statistics.median(ours),
            "mean_us": statistics.fmean(ours), "p99_us": ours[int(len(ours) * 0.99)],
            "step_median_us": statistics.median(whole)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--site", type=pathlib.Path, required="--child" not in sys.argv)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--simulated", action="store_true", help="on the simulated GPU")
    parser.add_argument("--cold", action="store_true", help="with nothing in the caches")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", type=int, choices=range(len(CASES)), help="only this one")
    parser.add_argument("--json", type=pathlib.Path, help="a line is appended for each case")
    parser.add_argument("--child", nargs=3, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.child[0], *map(bool, options.child[1:]))
    options.site, options.build = options.site.resolve(), options.build.resolve()
    print("%-46s %28s %28s %10s" % ("us a step in the free queue and in our code",
                                    "stock: median  mean   p99", "elastic: median  mean   p99",
                                    "of a step"))
    for case, (name, *_) in enumerate(CASES):
        if options.case not in (None, case):
            continue
        runs = {False: [], True: []}
        for turn in range(options.rounds):
            for elastic in ((False, True) if turn % 2 else (True, False)):
                runs[elastic].append(run(options, case, elastic))
        stock, ours = figures(runs[False]), figures(runs[True])
        print("%-46s %13.1f %6.1f %7.1f %13.1f %6.1f %7.1f %10.0f" % (
            name, stock["median_us"], stock["mean_us"], stock["p99_us"], ours["median_us"],
            ours["mean_us"], ours["p99_us"], ours["step_median_us"]), flush=True)
        if options.json:
            with options.json.open("a") as file:
                file.write(json.dumps({"what": "scheduler share: " + name, "cold": options.cold,
                                       "stock": stock, "elastic": ours}) + "\n")


if __name__ == "__main__":
    main()
