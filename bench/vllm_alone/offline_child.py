"""The process that runs vLLM's LLM class on the offline workloads: offline_child.py JOB, a JSON file.

It appends what it is about to do to the job's marks file, a line [time, "begin" or "end", name]
each, and leaves its figures in the job's result file.
"""
import json
import os
import pathlib
import sys
import time

# Not this folder: its modules must not stand in front of anything that the engine imports. A process
# that the engine spawns comes by here, too.
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:] = [path for path in sys.path if os.path.realpath(path) != str(HERE)]
sys.path.append(str(HERE.parent))

from vllm_alone import client, processes, workloads  # noqa: E402

PAUSE = 0.2  # seconds after each burst, for whoever follows the marks to look at the engine
TINY_PAUSE = 0.02


class Marks:
    def __init__(self, path):
        self.file = open(path, "a", buffering=1)

    def __call__(self, what, name):
        self.file.write(json.dumps([time.time(), what, name]) + "\n")


def generate(llm, requests):
    """All requests of a burst are there before the first step, so that every run forms the same
    batches and tokens can be compared. Answers their tokens in order, and seconds."""
    from vllm import SamplingParams
    prompts = [{"prompt_token_ids": request.prompt} for request in requests]
    params = [SamplingParams(max_tokens=request.output, temperature=0.0, ignore_eos=True,
                             detokenize=False) for request in requests]
    core = llm.llm_engine.engine_core
    core.call_utility("pause_scheduler", "keep", False)
    llm.enqueue(prompts, params, use_tqdm=False)
    begun = time.perf_counter()
    core.call_utility("resume_scheduler")
    outputs = llm.wait_for_completion(use_tqdm=False)
    seconds = time.perf_counter() - begun
    return [list(output.outputs[0].token_ids) for output in outputs], seconds


def run_step(llm, step, mark, pause):
    session = os.getsid(0)
    repeats = []
    for repeat in range(getattr(step, "repeats", 1)):
        requests = workloads.requests(step, repeat)
        before = processes.processor_seconds(session)
        mark("begin", step.name)
        tokens, seconds = generate(llm, requests)
        after = processes.processor_seconds(session)
        mark("end", step.name)
        time.sleep(pause)
        repeats.append({"requests": len(requests), "seconds": seconds,
                        "tokens": sum(map(len, tokens)),
                        "processors": processes.shares(before, after),
                        "digests": [client.digest(t) for t in tokens]})
        wrong = [r.output for r, t in zip(requests, tokens) if len(t) != r.output]
        if wrong:
            raise RuntimeError("%s: %d answers of a wrong length" % (step.name, len(wrong)))
    return repeats


def main(job):
    mark = Marks(job["marks"])
    from vllm import LLM
    llm = LLM(**job["llm"])
    mark("ready", "")
    for step in workloads.plan("warm-up", job["tiny"]):
        run_step(llm, step, lambda *_: None, 0)
    result = {"blocks": llm.llm_engine.vllm_config.cache_config.num_gpu_blocks, "workloads": {}}
    for step in workloads.plan("offline", job["tiny"]) if job["measure"] else ():
        if isinstance(step, workloads.Rest):
            mark("begin", step.name)
            time.sleep(step.seconds)
            mark("end", step.name)
        else:
            result["workloads"][step.name] = run_step(
                llm, step, mark, TINY_PAUSE if job["tiny"] else PAUSE)
    whole = pathlib.Path(job["result"] + ".part")
    whole.write_text(json.dumps(result))
    whole.rename(job["result"])
    llm.llm_engine.engine_core.shutdown()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    with open(sys.argv[1]) as job_file:
        main(json.load(job_file))
