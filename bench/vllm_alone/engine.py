"""How vLLM is started, stock or elastic, and what `kvcached stat` says of it."""
import json
import os
import re
import subprocess

MODEL_NAME = "m"
SEED = 0


def environment(options, mode, elastic, pool, library_log):
    """The same for both kinds but for the library. What is compiled on the way is kept in the work
    folder, so that only the first start there pays for it; engines that start at once keep it
    apart."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("KVCACHED_")}
    env.pop("LD_PRELOAD", None)
    cache = options.work / "cache" / ("%s-%s" % ("serve" if mode == "start" else mode,
                                                 "elastic" if elastic else "stock"))
    env.update(PYTHONUNBUFFERED="1", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1",
               VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1", VLLM_CACHE_ROOT=str(cache / "vllm"),
               TRITON_CACHE_DIR=str(cache / "triton"))
    for name, value in (("VLLM_USE_FLASHINFER_SAMPLER", "0"), ("VLLM_HOST_IP", "127.0.0.1"),
                        ("GLOO_SOCKET_IFNAME", "lo"), ("NCCL_SOCKET_IFNAME", "lo")):
        env.setdefault(name, value)
    for name, tool in (("CC", "/usr/bin/gcc"), ("CXX", "/usr/bin/g++")):
        if os.path.exists(tool):
            env.setdefault(name, tool)
    if options.site:
        env["PYTHONPATH"] = str(options.site)
    if options.gpu is not None:
        env.update(CUDA_VISIBLE_DEVICES=str(options.gpu), CUDA_DEVICE_ORDER="PCI_BUS_ID")
    if mode == "invariant":
        # Its endpoints for developers include the one that forgets all prefixes.
        env.update(VLLM_BATCH_INVARIANT="1", VLLM_SERVER_DEV_MODE="1")
    if elastic:
        env.update(LD_PRELOAD=str(options.build / "libkvcached.so"), KVCACHED_DIR=str(pool),
                   KVCACHED_LOG_FILE=str(library_log))
        env.update(options.setting)
    return env


VLLM = ("-m", "vllm.entrypoints.cli.main")
# With one, this process is what limits bursts of short requests, and not the engine.
API_SERVERS = {"serve": 4, "profile": 4}
# Of the GPU's memory. It does not decide the KV cache's size, which is given; so much must be free
# when an engine starts.
UTILIZATION = 0.1
CACHE_GIB = {"offline": 16}  # others:
USUAL_CACHE_GIB = 20


def cache_mib(options, mode):
    """The size of each engine's KV cache."""
    return (options.kv_gib or CACHE_GIB.get(mode, USUAL_CACHE_GIB)) * 1024


def server_command(options, mode, port, program=VLLM):
    return [options.python, *program, "serve", str(options.model),
            "--served-model-name", MODEL_NAME, "--load-format", options.load_format,
            "--skip-tokenizer-init", "--host", "127.0.0.1", "--port", str(port),
            "--kv-cache-memory-bytes", str(cache_mib(options, mode) << 20),
            "--gpu-memory-utilization", str(UTILIZATION), "--seed", str(SEED),
            "--api-server-count", str(API_SERVERS.get(mode, 1))]


def llm_arguments(options, mode):
    return {"model": str(options.model), "load_format": options.load_format,
            "skip_tokenizer_init": True, "kv_cache_memory_bytes": cache_mib(options, mode) << 20,
            "gpu_memory_utilization": UTILIZATION, "seed": SEED, "disable_log_stats": True}


def command(options, pool, *words):
    """What `kvcached` did with that pool."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("KVCACHED_")}
    env.pop("LD_PRELOAD", None)
    return subprocess.run([str(options.build / "kvcached"), *words], text=True,
                          capture_output=True, timeout=10, env=dict(env, KVCACHED_DIR=str(pool)))


def stat(options, pool):
    """What `kvcached stat --json` shows; None when there is no pool."""
    try:
        shown = json.loads(command(options, pool, "stat", "--json").stdout)
        return shown if shown["pools"] else None
    except (OSError, subprocess.SubprocessError, json.JSONDecodeError):
        return None


def cache_tokens(log):
    """What the KV cache holds by vLLM's own log; None where it does not say."""
    found = re.search(r"GPU KV cache size: ([0-9,]+) tokens", log.read_text(errors="replace"))
    return int(found[1].replace(",", "")) if found else None


def adapter_states(shown):
    """States of the adapter in all of vLLM's processes."""
    return sorted({p["adapter_state"] for pool in (shown or {}).get("pools", [])
                   for p in pool["processes"] if p["adapter"] == "vllm"})


def is_elastic(shown):
    return any(state.startswith("elastic") for state in adapter_states(shown))


def totals(shown):
    """The counters, added up over the processes."""
    names = ("charged_bytes", "used_bytes", "warm_bytes", "want_bytes", "reserved_bytes",
             "short_grants", "grows", "releases")
    processes = [p for pool in (shown or {}).get("pools", []) for p in pool["processes"]]
    return {name: sum(p[name] for p in processes) for name in names}
