#!/usr/bin/env python3
"""vLLM over HTTP on a real GPU, in a pool that another process exhausts: the same tokens as stock,
no error, no request left behind; and what can never fit is refused.

    tests/engines/gpu_pressure.py --site SITE --out OUT

SITE is an unpacked vLLM 0.24.0 with a model's config in SITE/_bundle. A stock and an elastic server
(VLLM_BATCH_INVARIANT=1) are asked the same: stock twice, so that it is known where it agrees with
itself; elastic alone in a pool that holds less than the load takes, and once more while a paged engine of
another tenant fills and empties its own cache there. Then less than one long request takes: a limit that
a server starts with, what a newcomer's minimum leaves, a limit that is set while it runs. Nothing is said
of speed. OUT gets pressure.json, pressure.txt and the logs; the last lines are one verdict each, and the
exit code is 1 when one fails.
"""
import argparse
import concurrent.futures
import contextlib
import datetime
import json
import operator
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import types

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.append(str(ROOT / "bench"))

from vllm_alone import client, engine, figures, sides, workloads  # noqa: E402

PLAN = "invariant"
PREEMPTIONS = "vllm:num_preemptions_total"
MIB = 1 << 20
POOL_MIB, CACHE_GIB = 3072, 8
LIMIT_MIB = 384             # what a server in a pool of its own may have at most
GUARANTEED_MIB = POOL_MIB - 896  # to a newcomer; what it leaves is more than vLLM keeps when idle
# With SITE/_bundle's model it takes 1,032 MiB, and generates just one token, so as not to take long.
TOO_LONG, SHORT = workloads.Request([7] * 16511, 1), workloads.Request([7] * 512, 16)
TOO_LONG_TOKENS = len(TOO_LONG.prompt) + TOO_LONG.output
REFUSED_WITHIN_S = 2.0   # as the README says
ACCEPTED_WITHIN_S = 5.0  # after the newcomer's end
# The other tenant: so many requests of so many tokens at once, every so many seconds.
PERIOD_S, REQUESTS, PROMPT, ANSWER, STEP_MS = 4, 24, 1000, 250, 10
LASTS_S = 600
SHAPE = ("--layers", "16", "--kv-heads", "8", "--head-dim", "128")  # as large as SITE/_bundle's
START_LIMIT_S, ROUND_LIMIT_S = 300.0, 300.0


# ---- The other tenants ---------------------------------------------------------------------------


def write_trace(path, seconds):
    begin = datetime.datetime(2024, 1, 1)
    with open(path, "w") as trace:
        trace.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for at in range(0, seconds, PERIOD_S):
            when = begin + datetime.timedelta(seconds=at)
            trace.write("%s.0000000,%d,%d\n" % (when, PROMPT, ANSWER) * REQUESTS)


class Tenant:
    """A paged engine with a cache of its own in the pool, which checks what it reads there."""

    def __init__(self, options, pool, name, *flags, **settings):
        trace = options.out / (name + ".csv")
        write_trace(trace, LASTS_S)
        self.log, self.library_log = (options.out / (name + end)
                                      for end in (".log", ".kvcached.log"))
        env = engine.environment(options, PLAN, True, pool, self.library_log)
        env.update(KVCACHED_NAME=name, **settings)
        with open(self.log, "w") as output:
            self.process = subprocess.Popen(
                [str(options.build / "engine"), "--name", name, *SHAPE, "--trace", str(trace),
                 "--elastic-bytes", "%dMiB" % POOL_MIB, "--report-every", "10",
                 "--step-seconds", str(STEP_MS / 1e3), *flags],
                env=env, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)

    def lines(self):
        found = []
        for line in self.log.read_text().rpartition("\n")[0].splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def end(self):
        """What it says at its end, with its exit status."""
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        last = (self.lines() or [{"event": "nothing"}])[-1]
        return dict(last, exit=self.process.returncode, waits=None)


def rival(options, pool):
    """Wants more than the pool has, again and again."""
    return Tenant(options, pool, "rival", "--step-ms", str(STEP_MS))


def newcomer(options, pool):
    """Wants most of the pool for itself alone; uses nothing of it."""
    tenant = Tenant(options, pool, "newcomer", "--lockstep",
                    KVCACHED_MIN="%dMiB" % GUARANTEED_MIB)
    tenant.process.stdin.write(b".")
    tenant.process.stdin.flush()
    return tenant


# ---- The servers ---------------------------------------------------------------------------------


def ask_all(side, rounds):
    """A record of every round, as the benchmark has them, and its seconds."""
    found = []
    for number in range(rounds):
        side.new_round()
        side.forget_prefixes()
        begun = time.monotonic()
        side.limit.set(ROUND_LIMIT_S)
        for step in workloads.plan(PLAN, side.options.tiny):
            for piece in range(step.pieces):
                side.ask(PLAN, step, piece, workloads.INVARIANT_CAPACITY)
        found.append(({"mode": PLAN, "round": number, "kind": side.kind, "workloads": side.found},
                      time.monotonic() - begun))
    return found


def metric(side, name):
    """A counter of the server; None where it has none of that name."""
    _, text = side.engine.answer("GET", "/metrics", 10)
    values = re.findall(r"^%s(?:\{[^}]*\})? ([0-9.e+]+)$" % re.escape(name), text, re.MULTILINE)
    return sum(map(float, values)) if values else None


def status_of(side, request):
    """(HTTP status, the answer's beginning) of a request that need not succeed."""
    status, text = side.engine.answer("POST", "/v1/completions", 60,
                                      client.encode_body(request, engine.MODEL_NAME))
    return status, " ".join(text.split())[:300]


def until(is_so, limit):
    """Seconds until it is; None where that took longer than `limit`."""
    begun = time.monotonic()
    while not is_so():
        if time.monotonic() - begun > limit:
            return None
        time.sleep(0.05)
    return time.monotonic() - begun


def charged(options, side):
    """MiB of all processes of the pool."""
    return engine.totals(engine.stat(options, side.pool))["charged_bytes"] // MIB


class Shown(threading.Thread):
    """What `kvcached stat` shows while the load lasts, by tenant."""

    def __init__(self, options, pool):
        super().__init__(daemon=True)
        self.options, self.pool = options, pool
        self.samples, self.over = [], threading.Event()

    def __enter__(self):
        self.start()

    def __exit__(self, *_):
        self.over.set()
        self.join()

    def run(self):
        while not self.over.wait(0.25):
            shown = engine.stat(self.options, self.pool)
            if shown:
                self.samples.append((time.time(), {
                    p["tenant"]: {k: p[k + "_bytes"] // MIB for k in ("charged", "used", "want")}
                    for pool in shown["pools"] for p in pool["processes"]}))

    def most(self, tenant, what):
        return max((s[tenant][what] for _, s in self.samples if tenant in s), default=0)


def start(options):
    """A stock server, an elastic one, and one in a pool of its own that may have little."""
    own = types.SimpleNamespace(**dict(
        vars(options), work=options.work / "limited", results=options.out / "limited",
        setting=dict(options.setting, KVCACHED_MAX="%dMiB" % LIMIT_MIB)))
    for folder in (own.work, own.results / "logs"):
        folder.mkdir(parents=True, exist_ok=True)
    servers = {name: sides.Http(given, PLAN, kind, sides.Limit()) for name, kind, given in (
        ("stock", "stock", options), ("elastic", "elastic", options), ("limited", "elastic", own))}
    for side in servers.values():
        side.limit.set(START_LIMIT_S)
        side.launch()
    while not all([side.is_ready() for side in servers.values()]):
        time.sleep(0.1)
    return servers


# ---- What is to hold -----------------------------------------------------------------------------


def under_pressure(options, both, verdict):
    """Stock's tokens in a pool that is too small, alone and beside another that wants it all."""
    stock, elastic = both["stock"], both["elastic"]
    shown, preempted = Shown(options, elastic.pool), [metric(elastic, PREEMPTIONS)]
    with concurrent.futures.ThreadPoolExecutor(1) as pool, shown:
        stocks = pool.submit(ask_all, stock, 2)
        elastics = ask_all(elastic, 1)
        preempted.append(metric(elastic, PREEMPTIONS))
        other = rival(options, elastic.pool)
        try:
            elastics += ask_all(elastic, 1)
        finally:
            said = other.end()
        preempted.append(metric(elastic, PREEMPTIONS))
        (one, stock_s), (two, _) = stocks.result()
    for (record, seconds), where, count in zip(elastics, ("alone", "beside another"),
                                               map(operator.sub, preempted[1:], preempted)):
        found = figures.tokens(dict(enumerate((one, two, record))), PLAN)
        verdict(found["agreed"] and not found["differ"] and count > 0,
                "%s: %d requests, no error, %d preemptions, %.1f s (stock %.1f); stock agrees with itself "
                "on %d, elastic differs in %d of these%s" % (
                    where, found["requests"], count, seconds, stock_s, found["agreed"],
                    found["differ"], found["differ"] and " (%s)" % found["differ_in"] or ""))
    most = {name: shown.most(name, "charged") for name in ("vllm", "rival")}
    verdict(most["rival"] > POOL_MIB // 4, "most charged of %d MiB: vLLM %d, the other %d" % (
        POOL_MIB, most["vllm"], most["rival"]))
    verdict(said["exit"] == 0 and said.get("tokens_verified"), "the other: exit %s, %s requests "
            "finished, %s preemptions, %s tokens verified, %s rows wrong" % (
                said["exit"], *(said.get(key) for key in (
                    "finished", "preemptions", "tokens_verified", "rows_wrong"))))
    return {"samples": shown.samples, "rival": said}


def too_little(limited, verdict):
    """An engine whose maximum is less than one long request takes."""
    begun = time.monotonic()
    status, answer = status_of(limited, TOO_LONG)
    verdict(status == 400, "at most %d MiB: a request of %d tokens is answered with %d after %.2f s: "
            "%s" % (LIMIT_MIB, TOO_LONG_TOKENS, status, time.monotonic() - begun, answer))
    status, answer = status_of(limited, SHORT)
    verdict(status == 200, "a short one is answered with %d%s" % (
        status, "" if status == 200 else ": " + answer))


def while_another_is_guaranteed(options, elastic, verdict):
    """What a newcomer's minimum leaves is less than one long request takes."""
    took = until(lambda: charged(options, elastic) <= POOL_MIB - GUARANTEED_MIB, 20.0)
    verdict(took is not None, "idle, vLLM is charged %d MiB" % charged(options, elastic))
    other = newcomer(options, elastic.pool)
    try:
        until(lambda: any(line["event"] == "start" for line in other.lines()), 30.0)
        time.sleep(REFUSED_WITHIN_S)  # what is accepted before waits for the newcomer's end
        status, answer = status_of(elastic, TOO_LONG)
        verdict(status == 400, "%d MiB of %d are guaranteed to another: %d tokens are answered with "
                "%d after %.0f s: %s" % (GUARANTEED_MIB, POOL_MIB, TOO_LONG_TOKENS, status,
                                         REFUSED_WITHIN_S, answer))
        verdict(status_of(elastic, SHORT)[0] == 200, "a short request is answered then")
    finally:
        said = other.end()
    took = until(lambda: status_of(elastic, TOO_LONG)[0] == 200, 20.0)
    verdict(took is not None and took <= ACCEPTED_WITHIN_S and said["exit"] == 0,
            "the newcomer has ended (exit %s): %d tokens are accepted %s" % (
                said["exit"], TOO_LONG_TOKENS,
                "never" if took is None else "after %.2f s" % took))


def too_small_a_limit(options, elastic, verdict):
    """By hand, while it runs: one line, and nothing changes."""
    done = engine.command(options, elastic.pool, "limit", "512MiB")
    said = (done.stdout + done.stderr).strip()
    verdict(done.returncode == 1 and len(said.splitlines()) == 1,
            "`kvcached limit 512MiB`: exit %d: %s" % (done.returncode, said))


def main(options):
    options.results, options.work = options.out, options.out / "work"
    for folder in (options.out / "logs", options.work):
        folder.mkdir(parents=True, exist_ok=True)
    verdicts, record = [], {}

    def verdict(good, text):
        verdicts.append("%s  %s" % ("PASS" if good else "FAIL", text))
        print(verdicts[-1], flush=True)
    both = {}
    try:
        both.update(start(options))
        print("ready: %s" % ", ".join("%s %.0f s" % (k, s.startup_s) for k, s in both.items()),
              flush=True)
        record = under_pressure(options, both, verdict)
        too_little(both["limited"], verdict)
        while_another_is_guaranteed(options, both["elastic"], verdict)
        too_small_a_limit(options, both["elastic"], verdict)
    except Exception as error:  # noqa: B902: whatever it is, what was found so far is kept
        verdict(False, "%s: %s" % (type(error).__name__, error))
    finally:
        for side in both.values():
            side.end()
    (options.out / "pressure.txt").write_text("\n".join(verdicts) + "\n")
    (options.out / "pressure.json").write_text(json.dumps(record))
    return any(line.startswith("FAIL") for line in verdicts)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--site", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--python", default=sys.executable, help="the interpreter for vLLM")
    parser.add_argument("--tiny", action="store_true", help="a fraction of the load")
    given = parser.parse_args()
    return types.SimpleNamespace(
        site=given.site.resolve(), model=given.site.resolve() / "_bundle", out=given.out.resolve(),
        build=given.build.resolve(), python=given.python, tiny=given.tiny, load_format="dummy",
        kv_gib=CACHE_GIB, places=None, gpu=None,
        setting={"KVCACHED_POOL": "%dMiB" % POOL_MIB, "KVCACHED_NAME": "vllm"})


if __name__ == "__main__":
    sys.exit(main(parse()))
