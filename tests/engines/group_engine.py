"""Run under the preloaded library: an engine core in this process, and a rank with its own simulated
GPU in each of several others. `group_test.py` names the scenario and reads what it prints."""
import ctypes
import json
import os
import random
import subprocess
import sys
import time
import zlib

import simulated_engine  # first: it chooses the size of a block
from doubles import miniature, multiproc, vllm_engine

import worlds  # noqa: E402

client = worlds.package.client
PAGE, LAYERS = vllm_engine.PAGE, vllm_engine.LAYERS


# ---- A rank --------------------------------------------------------------------------------------


class Runner(vllm_engine.Runner if worlds.SITE else miniature.Runner):
    """Fills the blocks of a step on the GPU, and looks at those of steps before."""

    def __init__(self, vllm_config, library, rank):
        super().__init__(vllm_config)
        self.library = library
        self.random = random.Random(rank)
        self.filled = {}  # request -> its blocks, as far as they were filled
        self.given = {}  # request -> its blocks, where steps bring only new ones
        self.steps = 0
        self.delay = 0.0

    def execute_model(self, output):
        if self.delay and self.random.random() < 0.3:
            time.sleep(self.delay)
        self.steps += 1
        for name, blocks in self.blocks_of(output).items():
            self.backed([(block, 1) for block in blocks])
            known = self.filled.get(name, [])
            if known != blocks[:len(known)]:
                known = []  # it was preempted
            for index in range(len(known), len(blocks)):
                self.fill(blocks[index], value(name, index))
            self.filled[name] = blocks
            if known:
                index = self.random.randrange(len(known))
                self.verify(known[index], value(name, index))
        return None

    def sample_tokens(self, grammar_output):
        return True

    def blocks_of(self, output):
        """The blocks of each request of the step."""
        if not worlds.SITE:
            return output.blocks
        for new in output.scheduled_new_reqs:
            self.given[new.req_id] = list(new.block_ids[0])
        cached = output.scheduled_cached_reqs
        for name, new in zip(cached.req_ids, cached.new_block_ids):
            new = list(new[0]) if new else []
            self.given[name] = new if name in cached.resumed_req_ids else self.given[name] + new
        return {name: self.given[name] for name in output.num_scheduled_tokens}

    def address(self, view, block):
        return view.data_ptr() + block * PAGE

    def backed(self, ranges):
        """Raises unless all of these blocks have memory on this GPU."""
        for view in self.views.values():
            for first, count in ranges:
                found = self.library.resident(self.address(view, first), count * PAGE)
                plain = found[0] in (client.OFF, client.NOT_ELASTIC)
                assert plain or found == (client.OK, count * PAGE), "blocks %d+%d: %s" % (
                    first, count, found)

    def fill(self, block, byte):
        for view in self.views.values():
            code = self.library.cuda.cuMemsetD8Async(
                ctypes.c_uint64(self.address(view, block)), ctypes.c_ubyte(byte),
                ctypes.c_size_t(PAGE), None)
            assert code == 0, code

    def verify(self, block, byte):
        found = ctypes.create_string_buffer(PAGE)
        for view in self.views.values():
            code = self.library.cuda.cuMemcpyDtoH_v2(
                found, ctypes.c_uint64(self.address(view, block)), ctypes.c_size_t(PAGE))
            assert code == 0 and found.raw == bytes([byte]) * PAGE, "block %d" % block

    def slow(self, seconds):
        self.delay = seconds

    def observe(self, most):
        """Once at most `most` bytes are charged and the books are exact, or after a while."""
        for _ in range(60):
            try:
                process = simulated_engine.shown()
                charged, shown = process["charged_bytes"], process["adapter_state"]
            except (IndexError, subprocess.CalledProcessError):
                charged, shown = 0, "not in a pool"
            resident = sum(self.library.resident(address, size)[1]
                           for address, size in self.library.allocated.items())
            if charged <= most and charged == resident:
                break
            time.sleep(0.05)
        return dict(charged=charged, resident=resident, shown=shown, steps=self.steps,
                    said=self.library.states[-1:])


def value(name, index):
    return zlib.crc32(("%s/%d" % (name, index)).encode()) & 0xFF


class Library(simulated_engine.Library):
    def __init__(self, device):
        super().__init__(device)
        self.allocated = {}

    def allocate(self, size):
        address = super().allocate(size)
        self.allocated[address] = size
        return address


class Rank:
    """The main function of a rank's process, with what it needs."""

    def __init__(self, scenario):
        self.scenario = scenario

    def __call__(self, pipe, rank):
        os.environ.update(self.scenario.get("environment", {}).get(str(rank), {}))
        library = Library(rank)
        worlds.adapter.library = miniature.library = library
        config = configuration(self.scenario)
        runner = Runner(config, library, rank)
        worker = make_worker(config, runner, rank)
        multiproc.serve(pipe, worker, runner)


def make_worker(config, runner, rank):
    if not worlds.SITE:
        return miniature.Worker(config, runner, rank)
    from vllm.v1.worker.gpu_worker import Worker

    class RankWorker(Worker):
        """vLLM's, but for what runs the model."""

        def __init__(self):
            self.vllm_config, self.model_runner, self.rank = config, runner, rank
            self.model_config, self.cache_config = config.model_config, config.cache_config

        def execute_model(self, scheduler_output):
            return self.model_runner.execute_model(scheduler_output)

        def sample_tokens(self, grammar_output):
            return self.model_runner.sample_tokens(grammar_output)

    vllm_engine.allocate_from(runner.library)
    return RankWorker()


# ---- The scheduler -------------------------------------------------------------------------------


def configuration(scenario):
    config = vllm_engine.config(scenario["blocks"], False, max_num_seqs=32, budget=1024,
                                async_scheduling=bool(worlds.SITE))
    config.parallel_config.world_size = scenario["ranks"]
    config.parallel_config.distributed_executor_backend = scenario.get("backend", "mp")
    return config


def processes(settings):
    return multiproc.Executor(settings["ranks"], Rank(settings), settings.get("method", "fork"))


class Spread(vllm_engine.Executor):
    """vLLM's steps go to ranks in other processes; their tokens are made here."""

    def __init__(self, vllm_config, ranks):
        self.vllm_config, self.ranks = vllm_config, ranks
        self.supported_tasks = ("generate",)
        self.max_concurrent_batches = vllm_config.max_concurrent_batches
        self.scheduled, self.steps = [], []

    def get_kv_cache_specs(self):
        return super().get_kv_cache_specs() * len(self.ranks.pipes)

    def determine_available_memory(self):
        return super().determine_available_memory() * len(self.ranks.pipes)

    def initialize_from_config(self, configs):
        self.ranks.initialize_from_config(configs[0])

    def execute_model(self, scheduler_output, non_block=False):
        self.ranks.execute_model(scheduler_output)
        return super().execute_model(scheduler_output, non_block)


class Engine(worlds.Engine):
    def _make_wheel(self, blocks, caching, settings):
        settings = dict(settings, blocks=blocks)
        core = vllm_engine.make(
            configuration(settings), None, lambda config: Spread(config, processes(settings)))
        self.steps = core.executor_double.steps
        self.executor = core.executor_double.ranks
        return core

    def _make_miniature(self, blocks, caching, settings):
        settings = dict(settings, blocks=blocks)
        config = configuration(settings)
        config.blocks, config.caching, config.budget = blocks, caching, 1024
        config.max_num_seqs, config.watermark = 32, 0.0
        core = sys.modules["vllm.v1.engine.core"].EngineCore(config, lambda _: processes(settings))
        self.steps = core.steps
        self.executor = core.model_executor
        return core

    def held(self):
        queue = self.balloon.queue if self.balloon else None
        return [r for stripe in range(queue.stripes) for r in queue.ranges(stripe)] if (
            queue) else []


def load(engine, scenario, dice):
    """Bursts of requests. Every few steps each rank looks at all that is allocatable."""
    executor, steps, slowest, peak = engine.executor, 0, 0.0, 0
    kill_at = dice.randrange(10, scenario["kill_before"]) if "kill_before" in scenario else None
    for burst in range(scenario.get("bursts", 3)):
        for i in range(scenario.get("requests", 24)):
            engine.add("b%d/%d" % (burst, i), range(dice.randrange(20, 300)),
                       dice.randrange(10, 60))
        while engine.busy():
            if steps == kill_at:
                executor.processes[1].kill()
                executor.failed = True
            begin = time.monotonic()
            engine.step()
            slowest = max(slowest, time.monotonic() - begin)
            engine.check()
            steps += 1
            if steps % 8 == 0 and not executor.failed:
                executor.call("backed", engine.held())
                peak = max(peak, engine.balloon.in_use() if engine.balloon else 0)
            if kill_at is not None and steps > kill_at + 100:
                return dict(steps=steps, slowest=slowest, peak=peak)
            if dice.random() < 0.02 and not scenario.get("lone_bursts"):
                engine.add("x%d" % steps, range(dice.randrange(20, 300)), dice.randrange(10, 60))
    return dict(steps=steps, slowest=slowest, peak=peak)


def observe_survivors(executor, most):
    """What the ranks that live find, when one was killed: each for itself."""
    found = []
    for pipe, process in zip(executor.pipes, executor.processes):
        if not process.is_alive():
            continue
        pipe.send(("observe", (most,)))
        answer = pipe.recv()
        while not isinstance(answer, dict):  # of steps that were in flight
            assert not isinstance(answer, str), answer
            answer = pipe.recv()
        found.append(answer)
    return found


def main():
    scenario = json.loads(sys.argv[1])
    dice = random.Random(scenario.get("seed", 0))
    engine = Engine(None, caching=False, **scenario)
    executor = engine.executor
    for rank, seconds in scenario.get("slow", {}).items():
        executor.pipes[int(rank)].send(("slow", (seconds,)))
        executor.pipes[int(rank)].recv()
    result = load(engine, scenario, dice)
    result["elastic"] = engine.balloon is not None
    result["finished"] = len(engine.outputs)
    result["left"] = os.listdir(os.environ["KVCACHED_DIR"])
    if executor.failed:
        executor.processes[1].join()
        result["ranks"] = observe_survivors(executor, 1 << 40)
    else:
        result["ranks"] = executor.call("observe", scenario.get("settles_at", 64 << 20))
    print(json.dumps(result))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
