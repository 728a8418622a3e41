#!/usr/bin/env python3
"""vLLM on a real GPU in one configuration after another, stock and elastic: the same tokens.

    tests/engines/gpu_configurations.py --site SITE --out OUT [--only eager,mla,…] [--jobs 8]

SITE is an unpacked vLLM 0.24.0 with a model's config in SITE/_bundle. Every configuration runs its
engine twice, in processes of their own; several run at once, and the elastic ones share one pool,
so nothing is said of speed. A configuration that stock cannot run here is shown as such. OUT gets
configurations.json, configurations.txt and the logs. The exit code is 1 when tokens differ, when an
elastic engine fails where stock did not, or when it was not elastic.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import gpu_vllm

HERE = pathlib.Path(__file__).resolve()
KV_CACHE_BYTES = 3 << 30
BURSTS = [("one", 1, 0), ("64", 64, 100), ("64 again", 64, 100)]
EAGER = dict(enforce_eager=True)
GEMMA = dict(
    architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", hidden_size=1024,
    intermediate_size=4096, num_hidden_layers=12, num_attention_heads=8, num_key_value_heads=4,
    head_dim=128, vocab_size=32000, max_position_embeddings=8192, sliding_window=128,
    layer_types=(["sliding_attention"] * 5 + ["full_attention"]) * 2, query_pre_attn_scalar=128,
    rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
                     "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}},
    hidden_activation="gelu_pytorch_tanh", rms_norm_eps=1e-6,
    attention_bias=False, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
    pad_token_id=0, torch_dtype="bfloat16", dtype="bfloat16")
DEEPSEEK = dict(
    architectures=["DeepseekV2ForCausalLM"], model_type="deepseek_v2", hidden_size=2048,
    intermediate_size=5632, num_hidden_layers=8, num_attention_heads=16, num_key_value_heads=16,
    kv_lora_rank=512, q_lora_rank=None, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128,
    n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=512,
    first_k_dense_replace=8, moe_layer_freq=1, n_group=1, topk_group=1, topk_method="greedy",
    scoring_func="softmax", norm_topk_prob=False, routed_scaling_factor=1.0, vocab_size=32000,
    max_position_embeddings=8192, hidden_act="silu", rms_norm_eps=1e-6,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, attention_bias=False,
    tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, torch_dtype="bfloat16",
    dtype="bfloat16")
# Name: (arguments of LLM, environment of both engines, model config or None for SITE/_bundle).
CONFIGURATIONS = {
    "eager": (EAGER, {}, None),
    "graphs": ({}, {}, None),
    "piecewise": (dict(compilation_config=dict(cudagraph_mode="PIECEWISE")), {}, None),
    "v1-runner": (EAGER, {"VLLM_USE_V2_MODEL_RUNNER": "0"}, None),
    "chunked": (dict(EAGER, max_num_batched_tokens=256, async_scheduling=False), {}, None),
    "expandable": (EAGER, {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, None),
    "fp8": (dict(EAGER, kv_cache_dtype="fp8"), {}, None),
    "sliding": (EAGER, {}, GEMMA),
    "mla": (EAGER, {}, DEEPSEEK),
    "tensor-parallel": (dict(tensor_parallel_size=2), {}, None),
    "tensor-parallel-eager": (dict(EAGER, tensor_parallel_size=2), {}, None),
}


def run_engine(options):
    """In the process of one engine."""
    from vllm import LLM
    arguments = dict(load_format="dummy", skip_tokenizer_init=True, seed=0, max_model_len=4096,
                     gpu_memory_utilization=0.05, kv_cache_memory_bytes=KV_CACHE_BYTES,
                     disable_log_stats=True)
    llm = LLM(model=options.model, **dict(arguments, **json.loads(options.arguments)))
    tokens = {}
    for name, count, first in BURSTS:
        tokens[name], _ = gpu_vllm.generate(llm, count, first)
        time.sleep(2 if name == "64" else 0.2)  # some of the memory goes back in between
    blocks = llm.llm_engine.vllm_config.cache_config.num_gpu_blocks
    pathlib.Path(options.result).write_text(json.dumps({"blocks": blocks, "tokens": tokens}))
    llm.llm_engine.engine_core.shutdown()
    os._exit(0)


def run(options, name, elastic):
    """Tokens by burst, or why there are none; seconds; what the library said."""
    arguments, extra, config = CONFIGURATIONS[name]
    folder = options.out / ("%s-%s" % (name, "elastic" if elastic else "stock"))
    folder.mkdir(parents=True, exist_ok=True)
    model = options.site / "_bundle"
    if config:
        model = folder / "model"
        model.mkdir(exist_ok=True)
        (model / "config.json").write_text(json.dumps(config))
    library_log, result = folder / "library.log", folder / "result"
    for old in (library_log, result):
        old.unlink(missing_ok=True)
    # Room for all prefixes: hits as in stock, and so the same batches.
    env = gpu_vllm.engine_environment(options, elastic, {"KVCACHED_PREFIX_CACHE": "100%"},
                                      library_log)
    env.update(extra)
    begun = time.monotonic()
    with open(folder / "output", "w") as output:
        process = subprocess.Popen(
            [sys.executable, "-B", str(HERE), "--model", str(model), "--arguments",
             json.dumps(arguments), "--result", str(result)], env=env, cwd=folder, stdout=output,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait(options.limit)
        except subprocess.TimeoutExpired:
            pass
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
    found = {"seconds": round(time.monotonic() - begun, 1), "exit": process.returncode}
    if result.exists():
        found.update(json.loads(result.read_text()))
    else:
        lines = (folder / "output").read_text(errors="replace").splitlines()
        errors = [line for line in lines if "Error" in line and "Engine core init" not in line]
        found["failure"] = (errors or lines or ["no output"])[-1][-300:]
    if elastic:
        log = library_log.read_text(errors="replace") if library_log.exists() else ""
        states = [line.partition("vllm: ")[2] for line in log.splitlines() if "vllm: " in line]
        found["state"] = states[-1] if states else "the library said nothing of vLLM"
    return found


def judge(name, stock, elastic):
    """Good or not, and one line."""
    if "tokens" not in stock:
        return True, "%s: stock does not run here: %s" % (name, stock["failure"])
    if "tokens" not in elastic:
        return False, "%s: elastic FAILED: %s" % (name, elastic["failure"])
    differ = {burst: sum(a != b for a, b in zip(stock["tokens"][burst], elastic["tokens"][burst]))
              for burst, _, _ in BURSTS}
    itself = sum(a != b for a, b in zip(stock["tokens"]["64"], stock["tokens"]["64 again"]))
    good = not any(differ.values()) and elastic["state"].startswith("elastic")
    return good, "%s: %s; requests that differ from stock: %s; stock from itself: %d of 64" % (
        name, elastic["state"],
        ", ".join("%d of %d" % (differ[b], count) for b, count, _ in BURSTS), itself)


def main(options):
    options.pool = options.out / "pool"
    options.pool.mkdir(parents=True, exist_ok=True)
    wanted = [(name, elastic) for name in options.only for elastic in (False, True)]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        running = {key: pool.submit(run, options, *key) for key in wanted}
        found = {key: future.result() for key, future in running.items()}
    lines, all_good = [], True
    for name in options.only:
        good, line = judge(name, found[name, False], found[name, True])
        all_good = all_good and good
        lines.append("%s  %s" % ("PASS" if good else "FAIL", line))
        print(lines[-1], flush=True)
    (options.out / "configurations.txt").write_text("\n".join(lines) + "\n")
    for one in found.values():
        one.pop("tokens", None)
    (options.out / "configurations.json").write_text(json.dumps(
        {"%s-%s" % (n, "elastic" if e else "stock"): f for (n, e), f in found.items()}, indent=1))
    return 0 if all_good else 1


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--site", type=pathlib.Path)
    parser.add_argument("--build", type=pathlib.Path, default=gpu_vllm.ROOT / "build")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--only", default=",".join(CONFIGURATIONS))
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--limit", type=float, default=150, help="seconds for one engine")
    for hidden in ("--model", "--arguments", "--result"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in ("site", "build", "out"):
        if getattr(options, name):
            setattr(options, name, getattr(options, name).resolve())
    options.only = options.only.split(",")
    unknown = [name for name in options.only if name not in CONFIGURATIONS]
    if unknown:
        parser.error("--only: %s is none of %s" % (unknown[0], ", ".join(CONFIGURATIONS)))
    if not options.model and not (options.site and options.out):
        parser.error("--site and --out are needed")
    return options


if __name__ == "__main__":
    options = parse()
    sys.exit(run_engine(options) if options.model else main(options))
