"""Stands in for vLLM where its benchmark is tested: the same commands and calls, no model. What
$STUB names happens in it, for starts of one kind only where the word ends in "-elastic" or "-stock"."""
import os
import pathlib
import sys
import threading
import time
import types
import zlib

ELASTIC = bool(os.environ.get("LD_PRELOAD"))


def told(word):
    words = os.environ.get("STUB", "").split()
    return word in words or word + ("-elastic" if ELASTIC else "-stock") in words


def started(how):
    """Leaves a trace of the start, for the test and for the double of `kvcached stat`."""
    if os.environ.get("STUB_STARTS"):
        with open(os.environ["STUB_STARTS"], "a") as file:
            file.write("%s %s%s\n" % (
                how, "elastic" if ELASTIC else "stock",
                " invariant" if os.environ.get("VLLM_BATCH_INVARIANT") == "1" else ""))
    if ELASTIC and not told("plain"):
        pathlib.Path(os.environ["KVCACHED_DIR"], "elastic").touch()
    if told("die"):
        sys.exit("the double dies, as it was told")


def token(prompt, position):
    salt = b"other" if told("other-tokens") and position == 2 else b""
    return zlib.crc32(bytes(str((prompt, position)), "ascii") + salt) % 32000


class SamplingParams:
    def __init__(self, max_tokens, **_):
        self.max_tokens = max_tokens


class LLM:
    def __init__(self, **arguments):
        started("offline")
        assert arguments["kv_cache_memory_bytes"] == 16 << 30
        cache = types.SimpleNamespace(num_gpu_blocks=1000)
        core = types.SimpleNamespace(call_utility=lambda *_: None, shutdown=lambda: None)
        self.llm_engine = types.SimpleNamespace(
            engine_core=core, vllm_config=types.SimpleNamespace(cache_config=cache))

    def enqueue(self, prompts, params, use_tqdm):
        self.asked = list(zip(prompts, params))

    def wait_for_completion(self, use_tqdm):
        if told("vanish"):  # while it rests
            print("the double vanishes", flush=True)
            threading.Timer(0.05, os._exit, (9,)).start()
        if told("hang"):
            time.sleep(60)
        return [types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=[
            token(prompt["prompt_token_ids"], i) for i in range(params.max_tokens)])])
            for prompt, params in self.asked]
