"""Run under the preloaded library and the simulated driver: an engine core that sleeps, and a front
end in the same process. Prints the longest request that is accepted each time that changes, until its
input ends; `simulated_test.py` reads it."""
import select
import sys
import types

import simulated_engine
import worlds

LONGEST = 2048  # tokens
length = worlds.package.vllm_length
module = types.SimpleNamespace(InputProcessor=type("InputProcessor", (), {
    "__init__": lambda self, vllm_config, renderer=None: None}))


def main():
    length.input_processor(module)
    config = worlds.vllm_engine.config
    made = []

    def with_front_end(*args, **kwargs):
        made.append(config(*args, **kwargs))
        module.InputProcessor(made[0])
        return made[0]
    worlds.vllm_engine.config = with_front_end
    engine = worlds.Engine(simulated_engine.Library(), blocks=simulated_engine.BLOCKS, queued=True,
                           max_model_len=LONGEST)
    model, seen = made[0].model_config, None
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        if model.max_model_len != seen:
            seen = model.max_model_len
            print(seen, flush=True)
    engine.balloon.cache.destroy()


main()
