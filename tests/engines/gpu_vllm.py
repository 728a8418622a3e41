#!/usr/bin/env python3
"""Stock vLLM on a real GPU, alone and with the library preloaded: the same tokens, less memory.

    tests/engines/gpu_vllm.py --archive vllm.tar.xz --out OUT [--parts eager-stock,eager-elastic,…]

The archive holds an unpacked vLLM 0.24.0 ("site/…") with a model's config in site/_bundle. Every
part runs the engine once in processes of its own; its result is kept in --work, so a second call
goes on where the first one stopped. OUT gets vllm.json (everything) and vllm.log. The last lines
are one verdict each; the exit code is 1 when one fails or a part is missing.
"""
import argparse
import ctypes
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import threading
import time

HERE = pathlib.Path(__file__).resolve()
ROOT = HERE.parent.parent.parent
IDLE_LIMIT_MIB = 600
MIB = 1 << 20
# One burst: name, requests, first prompt number. The same numbers give the same prompts again.
BURSTS = [("one", 1, 0), ("64", 64, 100), ("192", 192, 1000), ("64 again", 64, 100),
          ("192 again", 192, 1000)]
ENGINES = {
    "eager": dict(enforce_eager=True, enable_prefix_caching=False),
    "graphs": dict(enforce_eager=False, enable_prefix_caching=True),
}
# Part: engine, preloaded, further environment.
PARTS = {
    "eager-stock": ("eager", False, {}),
    "eager-elastic": ("eager", True, {}),
    "graphs-stock": ("graphs", False, {}),
    # Room for all that the bursts leave behind, so that hits are the same as in stock.
    "graphs-elastic": ("graphs", True, {"KVCACHED_PREFIX_CACHE": "50%"}),
    "graphs-elastic-uncached": ("graphs", True, {"KVCACHED_PREFIX_CACHE": "0"}),
}


# ---- In the process that runs the engine -------------------------------------------------------


def prompt(number):
    """64 to 255 tokens; every second one begins with the same 96."""
    length = 64 + number * 37 % 192
    head = [5 + i * 11 % 4000 for i in range(96)] if number % 2 else []
    tail = [3 + (number * 7919 + i * 104729 + i * i * 31) % 31000 for i in range(length)]
    return (head + tail)[:length]


def generate(llm, count, first):
    """All requests of a burst are there before the first step, so that every run forms the same
    batches. Answers the tokens in order, and seconds."""
    from vllm import SamplingParams
    prompts = [{"prompt_token_ids": prompt(first + i)} for i in range(count)]
    params = [SamplingParams(max_tokens=64 + (first + i) * 53 % 193, temperature=0.0,
                             ignore_eos=True, detokenize=False) for i in range(count)]
    core = llm.llm_engine.engine_core
    core.call_utility("pause_scheduler", "keep", False)
    llm.enqueue(prompts, params, use_tqdm=False)
    core.call_utility("resume_scheduler")  # the engine reads it after all requests
    begun = time.time()
    outputs = llm.wait_for_completion(use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs], time.time() - begun


def run_engine(options):
    marks = []

    def mark(what):
        marks.append((time.time(), what))
        print("MARK", what, flush=True)

    mark("start")
    from vllm import LLM
    llm = LLM(model=options.model, load_format="dummy", skip_tokenizer_init=True, seed=0,
              gpu_memory_utilization=options.utilization, max_model_len=4096,
              disable_log_stats=True, **ENGINES[options.engine])
    mark("ready")
    config = llm.llm_engine.vllm_config
    time.sleep(options.rest)
    mark("idle at start")
    result = {"blocks": config.cache_config.num_gpu_blocks, "bursts": {}}
    for name, count, first in BURSTS:
        mark("burst " + name)
        tokens, seconds = generate(llm, count, first)
        mark("end " + name)
        made = sum(map(len, tokens))
        result["bursts"][name] = {"tokens": tokens, "seconds": seconds, "made": made,
                                  "tokens_per_second": made / seconds}
        print("BURST %s: %d tokens, %.0f tokens/s" % (name, made, made / seconds), flush=True)
        time.sleep(0.5)
    time.sleep(options.rest)
    mark("idle at end")
    result["marks"] = marks
    pathlib.Path(options.result).write_text(json.dumps(result))
    llm.llm_engine.engine_core.shutdown()
    print("MARK over", flush=True)
    os._exit(0)


# ---- Around it ---------------------------------------------------------------------------------


class Gpu:
    """Used memory of the whole GPU, by NVML, sampled in a thread."""

    def __init__(self):
        class Memory(ctypes.Structure):
            _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]
        try:
            self.nvml = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            self.nvml = ctypes.CDLL("/usr/local/nvidia/lib64/libnvidia-ml.so.1")
        assert self.nvml.nvmlInit_v2() == 0
        self.device = ctypes.c_void_p()
        assert self.nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self.device)) == 0
        self.memory = Memory()
        self.samples = []
        self.stopped = threading.Event()

    def used_mib(self):
        assert self.nvml.nvmlDeviceGetMemoryInfo(self.device, ctypes.byref(self.memory)) == 0
        return self.memory.used / MIB

    def name(self):
        text = ctypes.create_string_buffer(96)
        self.nvml.nvmlDeviceGetName(self.device, text, 96)
        return text.value.decode()

    def watch(self):
        self.samples = []
        self.stopped.clear()
        self.thread = threading.Thread(target=self._sample)
        self.thread.start()

    def _sample(self):
        while not self.stopped.wait(0.05):
            self.samples.append((time.time(), round(self.used_mib(), 1)))

    def stop(self):
        self.stopped.set()
        self.thread.join()

    def wait_until_free(self, baseline):
        end = time.time() + 15
        while self.used_mib() > baseline + 64 and time.time() < end:
            time.sleep(0.1)


class Log:
    def __init__(self, path):
        self.file = open(path, "a", buffering=1)

    def say(self, text):
        line = "%s %s" % (time.strftime("%H:%M:%S"), text)
        print(line, flush=True)
        self.file.write(line + "\n")


def engine_environment(options, preload, extra, log_file):
    env = {k: v for k, v in os.environ.items() if not k.startswith("KVCACHED_")}
    env.update(
        PYTHONPATH=str(options.site), PYTHONUNBUFFERED="1", HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1", VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1",
        VLLM_USE_FLASHINFER_SAMPLER="0", VLLM_HOST_IP="127.0.0.1", GLOO_SOCKET_IFNAME="lo",
        NCCL_SOCKET_IFNAME="lo", KVCACHED_DIR=str(options.pool))
    for name, tool in (("CC", "gcc"), ("CXX", "g++")):
        if os.path.exists("/usr/bin/" + tool):
            env.setdefault(name, "/usr/bin/" + tool)
    env.pop("LD_PRELOAD", None)
    if preload:
        env.update(LD_PRELOAD=str(options.build / "libkvcached.so"), KVCACHED_LOG="info",
                   KVCACHED_LOG_FILE=str(log_file), **extra)
    return env


def stat(options, *flags):
    try:
        done = subprocess.run([str(options.build / "kvcached"), "stat", *flags], text=True,
                              capture_output=True, timeout=10,
                              env=dict(os.environ, KVCACHED_DIR=str(options.pool)))
        return done.stdout + done.stderr
    except (OSError, subprocess.SubprocessError) as error:
        return repr(error)


def run_part(options, gpu, log, part):
    engine, preload, extra = PARTS[part]
    log_file = options.work / (part + ".kvcached.log")
    output = options.work / (part + ".out")
    result_file = options.work / (part + ".result")
    for old in (log_file, result_file):
        old.unlink(missing_ok=True)
    gpu.wait_until_free(options.baseline)
    before = gpu.used_mib()
    log.say("part %s begins, %.0f MiB in use" % (part, before))
    begun = time.time()
    command = [sys.executable, "-B", str(HERE), "--engine", engine, "--model",
               str(options.site / "_bundle"), "--result", str(result_file), "--rest",
               str(options.rest if preload else 1.5), "--utilization", str(options.utilization)]
    stats, done_at = [], None
    with open(output, "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT,
                                   stdin=subprocess.DEVNULL, cwd=options.work,
                                   env=engine_environment(options, preload, extra, log_file),
                                   start_new_session=True)
        gpu.watch()
        try:
            while process.poll() is None and time.time() - begun < options.part_limit:
                time.sleep(0.25)
                done_at = done_at or (time.time() if result_file.exists() else None)
                if done_at and time.time() - done_at > 15:
                    log.say("  the engine does not end; killed")
                    break
                text = output.read_text(errors="replace")
                marks = [line for line in text.splitlines() if line.startswith("MARK")]
                live = marks[-1][5:] if marks else ""
                if preload and live.startswith(("burst 192", "idle", "end 192")) and (
                        not stats or stats[-1][0] != live or time.time() - stats[-1][3] > 1):
                    stats.append((live, stat(options), stat(options, "--json"), time.time()))
        finally:
            # The engine's processes are in the child's own process group.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
            gpu.stop()
    record = {"part": part, "library": options.library, "seconds": time.time() - begun,
              "exit": process.returncode, "used_before_mib": before, "stats": stats,
              "samples": gpu.samples[::4], "complete": False}
    if result_file.exists():
        record.update(json.loads(result_file.read_text()), complete=True)
        record["memory"] = memory_at(record["marks"], gpu.samples, before)
        for burst in record["bursts"].values():
            log.say("  %6d tokens, %6.0f tokens/s" % (burst["made"], burst["tokens_per_second"]))
        log.say("  used above the start: " + ", ".join(
            "%s %.0f MiB" % item for item in record["memory"].items()))
    if stats:
        log.say("  stat during %s:\n%s" % (stats[0][0], stats[0][1]))
    text = output.read_text(errors="replace")
    log.file.write("---- output of %s\n%s\n" % (part, text))
    if log_file.exists():
        log.file.write("---- library's log of %s\n%s\n" % (
            part, log_file.read_text(errors="replace")[-200000:]))
    if not record["complete"]:
        log.say("part %s FAILED after %.0f s (exit %s); its output ends:\n%s" % (
            part, record["seconds"], process.returncode, text[-3000:]))
    log.say("part %s took %.0f s" % (part, record["seconds"]))
    (options.work / (part + ".json")).write_text(json.dumps(record))
    return record


def memory_at(marks, samples, before):
    """MiB above `before` at the named moments, and the peak of each burst."""
    def last(until):
        seen = [used for at, used in samples if at <= until]
        return (seen[-1] if seen else 0) - before
    found = {}
    times = {what: at for at, what in marks}
    for what, at in times.items():
        if what.startswith("idle"):
            found[what] = last(at)
        elif what.startswith("burst "):
            end = times.get("end " + what[6:], at)
            during = [used for t, used in samples if at <= t <= end]
            found["peak in " + what] = max(during or [before]) - before
    return found


# ---- Verdicts ----------------------------------------------------------------------------------


def different(records, a, b):
    """How many requests of each burst have other tokens in part `a` than in `b`."""
    found = {}
    for name, _, _ in BURSTS:
        pairs = zip(records[a]["bursts"][name]["tokens"], records[b]["bursts"][name]["tokens"])
        found[name] = sum(x != y for x, y in pairs)
    return found


def differences_within(record):
    """The same for the bursts that a part repeats."""
    return sum(x != y for one, two in (("64", "64 again"), ("192", "192 again"))
               for x, y in zip(record["bursts"][one]["tokens"], record["bursts"][two]["tokens"]))


def block_bytes(site):
    shape = json.loads((site / "_bundle" / "config.json").read_text())
    return (2 * 16 * shape["num_hidden_layers"] * shape["num_key_value_heads"] *
            shape["head_dim"] * 2)


def judge(options, records, log):
    verdicts = []

    def verdict(good, text):
        verdicts.append((good, text))

    def complete(*parts):
        return all(records.get(part, {}).get("complete") for part in parts)

    for engine in ENGINES:
        stock, elastic = engine + "-stock", engine + "-elastic"
        if not complete(stock):
            continue
        kv = records[stock]["blocks"] * block_bytes(options.site) / MIB
        log.say("%s: stock repeats itself but for %d of 256 requests; its KV cache has %.0f MiB" % (
            engine, differences_within(records[stock]), kv))
        if complete(elastic):
            wrong = different(records, stock, elastic)
            verdict(not any(wrong.values()), "%s: requests that differ from stock: %s" % (
                engine, ", ".join("%d of %d" % (wrong[name], n) for name, n, _ in BURSTS)))
            for name, _, _ in BURSTS:
                rates = [records[p]["bursts"][name]["tokens_per_second"] for p in (stock, elastic)]
                log.say("%s: burst %s: %.0f tokens/s stock, %.0f elastic (%.3f)" % (
                    engine, name, rates[0], rates[1], rates[1] / rates[0]))
        # A prefix cache that may keep memory is judged at the start; without one also at the end.
        for part, moments in ((elastic, ("idle at start", "idle at end")[:2 if engine == "eager"
                                                                         else 1]),
                              (elastic + "-uncached", ("idle at start", "idle at end"))):
            if not complete(part):
                continue
            for moment in moments:
                floor = records[stock]["memory"][moment] - kv
                over = records[part]["memory"][moment] - floor
                verdict(over <= IDLE_LIMIT_MIB,
                        "%s, %s: %.0f MiB above weights, activations and context (%.0f MiB)" % (
                            part, moment, over, floor))
            live = [json.loads(s[2]) for s in records[part]["stats"] if s[2].startswith("{")]
            states = {p["adapter_state"] for pools in live for pool in pools["pools"]
                      for p in pool["processes"] if p["adapter"] == "vllm"}
            verdict(any(state.startswith("elastic") for state in states),
                    "%s: stat shows vllm as %s" % (part, sorted(states)))
    for part in options.parts:
        if not complete(part):
            verdict(False, part + ": no result")
    for good, text in verdicts:
        log.say("%s  %s" % ("PASS" if good else "FAIL", text))
    return all(good for good, _ in verdicts)


def main(options):
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    options.pool = options.work / "pool"
    options.pool.mkdir(exist_ok=True)
    options.library = hashlib.sha256((options.build / "libkvcached.so").read_bytes()).hexdigest()
    log = Log(options.out / "vllm.log")
    begun = time.time()
    if not (options.site / "_bundle" / "config.json").exists():
        log.say("unpacking %s" % options.archive)
        with tarfile.open(options.archive, "r:xz") as archive:
            archive.extractall(options.site.parent, filter="fully_trusted")
    gpu = Gpu()
    options.baseline = gpu.used_mib()
    log.say("%s, %.0f MiB in use, python %s" % (gpu.name(), options.baseline,
                                                sys.version.split()[0]))
    records = {}
    for part in options.parts:
        kept = options.work / (part + ".json")
        record = json.loads(kept.read_text()) if kept.exists() else {}
        stale = PARTS[part][1] and record.get("library") != options.library
        if record.get("complete") and not stale:
            log.say("part %s: kept from an earlier call" % part)
        elif time.time() - begun > options.limit - 45:
            log.say("part %s: no time left; call again" % part)
            continue
        else:
            record = run_part(options, gpu, log, part)
        records[part] = record
        (options.out / "vllm.json").write_text(json.dumps(
            {"device": gpu.name(), "date": time.strftime("%Y-%m-%d"), "parts": records}))
    good = judge(options, records, log)
    log.say("%s after %.0f s" % ("all good" if good else "NOT good", time.time() - begun))
    return 0 if good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--archive", type=pathlib.Path, help="the packed vLLM")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/kvcached-vllm"))
    parser.add_argument("--site", type=pathlib.Path, help="the unpacked vLLM (WORK/site)")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--limit", type=float, default=480, help="seconds for all of it")
    parser.add_argument("--part-limit", type=float, default=150, help="seconds for one part")
    parser.add_argument("--rest", type=float, default=11, help="seconds of idleness to measure")
    parser.add_argument("--utilization", type=float, default=0.9)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.engine:
        run_engine(given)
    given.build = given.build.resolve()
    given.work = given.work.resolve()
    given.site = (given.site or given.work / "site").resolve()
    given.out = (given.out or given.build / "vllm").resolve()
    given.parts = given.parts.split(",")
    sys.exit(main(given))
