"""The process that runs vLLM's LLM class: offline_child.py JOB, a JSON file.

It says when it is ready and then does what it is told, a line {"plan", "step", "piece", "number"}
on its standard input each, until that ends. It answers each by a line in the job's file of answers.
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


def generate(llm, requests):
    """All requests of a burst are there before the first step, so that every engine forms the same
    batches and tokens can be compared. Answers their tokens in order, when it began, and seconds."""
    from vllm import SamplingParams
    prompts = [{"prompt_token_ids": request.prompt} for request in requests]
    params = [SamplingParams(max_tokens=request.output, temperature=0.0, ignore_eos=True,
                             detokenize=False) for request in requests]
    core = llm.llm_engine.engine_core
    core.call_utility("pause_scheduler", "keep", False)
    llm.enqueue(prompts, params, use_tqdm=False)
    at, begun = time.time(), time.perf_counter()
    core.call_utility("resume_scheduler")
    outputs = llm.wait_for_completion(use_tqdm=False)
    seconds = time.perf_counter() - begun
    return [list(output.outputs[0].token_ids) for output in outputs], at, seconds


def do(llm, order, tiny):
    step = workloads.step_named(order["plan"], order["step"], tiny)
    requests = workloads.requests(step, order["piece"], number=order["number"])
    session = os.getsid(0)
    before = processes.processor_seconds(session)
    tokens, begun, seconds = generate(llm, requests)
    after, ended = processes.processor_seconds(session), begun + seconds
    wrong = [r.output for r, t in zip(requests, tokens) if len(t) != r.output]
    if wrong:
        raise RuntimeError("%s: %d answers of a wrong length" % (step.name, len(wrong)))
    figures = {"requests": len(requests), "seconds": seconds, "tokens": sum(map(len, tokens)),
               "processors": processes.shares(before, after),
               "digests": [client.digest(t) for t in tokens]}
    return {"figures": figures, "begun": begun, "ended": ended}


def main(job):
    with open(job["answers"], "a", buffering=1) as answers:
        def answer(what):
            answers.write(json.dumps(what) + "\n")

        from vllm import LLM
        llm = LLM(**job["llm"])
        answer({"ready": time.time()})
        for line in sys.stdin:
            answer(do(llm, json.loads(line), job["tiny"]))
    llm.llm_engine.engine_core.shutdown()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    with open(sys.argv[1]) as job_file:
        main(json.load(job_file))
