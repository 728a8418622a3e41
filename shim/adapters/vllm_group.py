"""vLLM with several GPUs: the scheduler in one process, a worker with its tensors in each of others.

EngineCore.__init__ makes a group file before it starts its workers, which find its path in their
environment. Each worker makes the cache of its GPU and offers it; when the block pool comes, all
workers have, and the scheduler decides: a balloon over the group, or everything backed for good.

Steps are numbered where the executor hands them to the workers, and the number travels with the
scheduler's output: so it does not matter how many are in flight, who schedules them, and what a
worker runs besides (warm-up, dummy batches).
"""

import logging
import os
import weakref

from _kvcached import balloon, client, group, group_file, group_rank, seams, vllm_cache

PATH = "KVCACHED_GROUP"  # where workers find the file
STEP = "_kvcached_step"  # on a scheduler's output

log = logging.getLogger("kvcached")


def form(args, kwargs, unknown):
    """Ranks for an EngineCore of these arguments, or None: one GPU, or none that we could serve.
    `unknown()`: what of the scheduler we do not know, "" for nothing."""
    config = kwargs.get("vllm_config", args[0] if args else None)
    parallel = getattr(config, "parallel_config", None)
    if getattr(parallel, "world_size", 1) in (1, None):
        return None
    try:
        backend = parallel.distributed_executor_backend
        if backend != "mp" or (getattr(parallel, "nnodes", 1) or 1) != 1:
            raise group_file.Unusable("its workers are not our children (%s)" % (backend,))
        why = unknown()
        if why:
            raise group_file.Unusable(why)
        return Ranks(group_file.create(parallel.world_size))
    except Exception as error:
        log.warning("kvcached: an engine with %s GPUs is not elastic: %s", parallel.world_size,
                    error)
        return None


class Ranks:
    """In the scheduler's process what vllm_cache.Allocation is in an engine of one."""

    def __init__(self, file):
        self.file = file
        self.group = group.Group(file)
        self.balloon = None
        self.trouble_was = ""
        self.outer = os.environ.get(PATH)
        os.environ[PATH] = file.path

    def complete(self):
        """All workers have started, or never will."""
        if self.outer is None:
            os.environ.pop(PATH, None)
        else:
            os.environ[PATH] = self.outer
        self.file.unlink()

    @property
    def elastic(self):
        """Ranks that must not run without a balloon."""
        return [rank for rank, state in enumerate(self.group.states())
                if state in (group_file.READY, group_file.UNBACKED)]

    def meet(self, pool):
        """The engine made its block pool: withholds all blocks without memory."""
        if self.balloon is not None or not self.elastic:
            return
        blocks = len(pool.blocks)
        try:
            why = self.group.agree(blocks, vllm_cache.PINNED)
            if not why:
                self._inflate(pool, self.group, self.group.report)
        except Exception as error:
            why = str(error) or repr(error)
        if not why:
            self.group.decide(group_file.ELASTIC)
            self.balloon.start()
            return
        self.give_up(why)
        try:
            # The ranks say what they are: each has its own part of it.
            self._inflate(pool, None, lambda state: None)
        except Exception as second:
            log.warning("kvcached: %r", second)
            self.must_back()
            return
        self.balloon.pin(why)

    def _inflate(self, pool, cache, report):
        heads = [self.file.head(rank) for rank in self.group.ranks]
        size, least = (max(head[word] for head in heads)
                       for word in (group_file.BYTES, group_file.LEAST))
        keep = vllm_cache.prefix_cache_blocks(len(pool.blocks), size)
        self.balloon = balloon.Balloon(pool, self.group, cache, self.group.ranks, keep, least,
                                       report)
        pool._kvcached = self.balloon

    def give_up(self, why):
        self.trouble_was = str(why) or repr(why)
        log.warning("kvcached: the KV cache of this engine is not elastic: %s", self.trouble_was)
        self.group.decide(group_file.WHOLE, self.trouble_was)

    def must_back(self):
        for rank in self.group.ranks:
            if self.group.back_whole(rank, vllm_cache.START_WAIT_MS) != client.OK:
                raise RuntimeError("kvcached: no memory for the whole KV cache of rank %d, and it "
                                   "cannot be elastic: %s" % (rank, self.trouble_was))

    def watch(self, core):
        """Numbers the steps that the engine gives to its workers."""
        executor = core.model_executor
        try:
            execute = seams.check(type(executor), "execute_model", ("self", "scheduler_output"))
        except seams.Unknown as error:
            self.balloon.fail(error)
            return
        # The engine counts on its executor going when it lets go of it.
        known, steps = weakref.ref(executor), self.group

        def execute_model(scheduler_output, *args, **kwargs):
            steps.step += 1
            setattr(scheduler_output, STEP, steps.step)
            return execute(known(), scheduler_output, *args, **kwargs)
        executor.execute_model = execute_model


# ---- In a worker ---------------------------------------------------------------------------------


def join(worker, report):
    """The Rank of a worker whose scheduler is another process, or None."""
    path = os.environ.get(PATH)
    if not path:
        return None
    try:
        return group_rank.Rank(group_file.join(path, worker.rank), worker.rank, report)
    except Exception as error:
        log.warning("kvcached: %s: %r", path, error)
        return None


def offer(rank, allocation, worker):
    """Gives the KV memory of a worker, which is complete, to its group."""
    try:
        if allocation.cache is not None and not allocation.trouble_was:
            watch(rank, allocation, worker)
            longest = allocation.request_blocks(allocation.config.model_config.max_model_len)
            rank.offer(allocation.cache, allocation.blocks, sum(allocation.pieces.values()),
                       longest, vllm_cache.PINNED, lambda why: back_whole(allocation, why))
    except Exception as error:
        allocation.give_up(error)
    if rank.cache is None and allocation.elastic:
        rank.must_back(lambda why: back_whole(allocation, why))
    elif rank.cache is None:
        rank.not_elastic(group_file.BACKED if allocation.pieces else group_file.PLAIN)
        return
    rank.serve()


def back_whole(allocation, why):
    allocation.give_up(allocation.trouble_was or why)
    return not allocation.elastic


def watch(rank, allocation, worker):
    """Tells the rank what its worker has launched: a step is out when its tokens are sampled, and
    those before it when it begins."""
    execute = seams.check(type(worker), "execute_model", ("self", "scheduler_output"))
    sample = seams.check(type(worker), "sample_tokens", ("self",))
    last = 0  # step that is being launched

    def execute_model(scheduler_output, *args, **kwargs):
        nonlocal last
        rank.launch(last)
        step = getattr(scheduler_output, STEP, None)
        if step is not None and not last and rank.verdict() == group_file.UNDECIDED:
            allocation.give_up("the scheduler decided nothing")
            allocation.must_back()
        result = execute(worker, scheduler_output, *args, **kwargs)
        if step is not None:
            last = step
            if result is not None or not scheduler_output.total_num_scheduled_tokens:
                rank.launch(last)
        return result

    def sample_tokens(*args, **kwargs):
        result = sample(worker, *args, **kwargs)
        rank.launch(last)
        return result

    worker.execute_model, worker.sample_tokens = execute_model, sample_tokens
