"""vLLM with several GPUs: what its scheduler's process decides, and how steps are counted."""
import os
import tempfile
import types
import unittest

import worlds
from doubles import miniature

group_file, group_rank, vllm_group = (getattr(worlds.package, name) for name in
                                      ("group_file", "group_rank", "vllm_group"))


class Cache:
    def stripes(self):
        return 0, [(0, 4), (4, 60)]

    def acquire_ranges(self, ranges, wait_ms):
        return 0

    def pressure(self):
        return 0

    expect = in_use = release = lambda self, value: 0


class Ranks(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        os.environ["KVCACHED_DIR"] = folder.name
        self.addCleanup(os.environ.pop, "KVCACHED_DIR")
        self.whole = [False, False]

    def form(self, **settings):
        parallel = worlds.vllm_engine.Loose(world_size=2, distributed_executor_backend="mp")
        vars(parallel).update(settings)
        config = worlds.vllm_engine.Loose(parallel_config=parallel)
        return vllm_group.form((), dict(vllm_config=config), lambda: "")

    def ranks(self, formed, *states):
        """Ranks that came to these states."""
        made = []
        for number, state in enumerate(states):
            worker = types.SimpleNamespace(rank=number)
            made.append(vllm_group.join(worker, lambda text: None))
            back_whole = lambda why, number=number: self.whole[number]  # noqa: E731
            if state == group_file.READY:
                made[-1].offer(Cache(), 64, 1 << 20, 8, 1, back_whole)
            elif state == group_file.UNBACKED:
                made[-1].must_back(back_whole)
            else:
                made[-1].not_elastic(state)
        formed.complete()
        self.assertNotIn(vllm_group.PATH, os.environ)
        self.assertEqual(os.listdir(os.environ["KVCACHED_DIR"]), [])
        return made

    def test_all_elastic(self):
        worlds.package.balloon.WAIT_MS, usual = 5000, worlds.package.balloon.WAIT_MS
        self.addCleanup(setattr, worlds.package.balloon, "WAIT_MS", usual)
        formed = self.form()
        for rank in self.ranks(formed, group_file.READY, group_file.READY):
            rank.serve()
        pool = miniature.BlockPool(64, True)
        formed.meet(pool)
        self.assertEqual(pool.get_num_free_blocks(), 3)
        self.assertEqual((formed.balloon.keep_cached, formed.balloon.least), (3, 8))
        self.assertTrue(formed.balloon.make_room(10, 0))
        self.assertEqual(pool.get_num_free_blocks(), 63)

    def test_an_idle_engine_wishes_for_nothing(self):
        formed = self.form()
        made = self.ranks(formed, group_file.READY, group_file.READY)
        pool = miniature.BlockPool(64, True)
        formed.meet(pool)  # nobody answers its first wish in time
        self.assertEqual(pool.get_num_free_blocks(), 0)
        for rank in made:
            rank._look()
        self.assertEqual([rank.held[0] for rank in made], [True, True])
        formed.balloon.settle(True)
        for rank in made:
            rank._look()
        self.assertEqual([rank.held[0] for rank in made], [False, False])

    def test_none_elastic(self):
        formed = self.form()
        self.ranks(formed, group_file.PLAIN, group_file.BACKED)
        pool = miniature.BlockPool(64, True)
        formed.meet(pool)
        self.assertIsNone(formed.balloon)
        self.assertEqual((pool.get_num_free_blocks(), formed.elastic), (63, []))

    def test_one_without_memory_yet(self):
        for other in (group_file.PLAIN, group_file.READY, group_file.UNBACKED):
            with self.subTest(other=other):
                self.whole = [False, True]
                formed = self.form()
                made = self.ranks(formed, group_file.UNBACKED, other)
                pool = miniature.BlockPool(64, True)
                with self.assertLogs("kvcached", "WARNING"):
                    formed.meet(pool)
                for rank in made:
                    rank._look()
                self.assertEqual(pool.get_num_free_blocks(), 0)
                self.whole[0] = True
                made[0]._look()
                formed.balloon.retry_pin_at = 0
                self.assertTrue(formed.balloon.make_room(5, 0))
                self.assertEqual(pool.get_num_free_blocks(), 63)
                self.assertIsNone(pool._kvcached)

    def test_without_a_block_pool_all_must_be_backed(self):
        worlds.package.vllm_cache.START_WAIT_MS, usual = 50, worlds.package.vllm_cache.START_WAIT_MS
        self.addCleanup(setattr, worlds.package.vllm_cache, "START_WAIT_MS", usual)
        formed = self.form()
        for rank in self.ranks(formed, group_file.READY, group_file.READY):
            rank.serve()
        with self.assertLogs("kvcached", "WARNING"):
            formed.give_up("no block pool came")
        with self.assertRaisesRegex(RuntimeError, "no memory for .* rank 0"):
            formed.must_back()
        self.whole = [True, True]
        formed.group.back_whole(0, 5000)
        formed.group.back_whole(1, 5000)
        formed.must_back()

    def test_engines_that_get_no_group(self):
        for settings in (dict(nnodes=2), dict(distributed_executor_backend="external_launcher")):
            with self.assertLogs("kvcached", "WARNING"):
                self.assertIsNone(self.form(**settings))
        self.assertIsNone(self.form(world_size=1))
        self.assertEqual(os.listdir(os.environ["KVCACHED_DIR"]), [])

    def test_a_worker_without_its_file(self):
        os.environ[vllm_group.PATH] = os.environ["KVCACHED_DIR"] + "/gone"
        self.addCleanup(os.environ.pop, vllm_group.PATH)
        with self.assertLogs("kvcached", "WARNING"):
            self.assertIsNone(vllm_group.join(types.SimpleNamespace(rank=0), None))


class Worker:
    answer = None

    def execute_model(self, scheduler_output):
        return self.answer

    def sample_tokens(self, grammar_output):
        return "tokens"


class Steps(unittest.TestCase):
    def setUp(self):
        self.launched = []
        self.gave_up = []
        self.verdict = group_file.ELASTIC
        rank = types.SimpleNamespace(launch=self.launched.append, verdict=lambda: self.verdict)
        allocation = types.SimpleNamespace(give_up=self.gave_up.append,
                                           must_back=lambda: self.gave_up.append("backed"))
        self.worker = Worker()
        vllm_group.watch(rank, allocation, self.worker)

    def output(self, step=None, tokens=5):
        output = types.SimpleNamespace(total_num_scheduled_tokens=tokens)
        if step:
            setattr(output, vllm_group.STEP, step)
        return output

    def after(self, call, argument):
        getattr(self.worker, call)(argument)
        return self.launched[-1]

    def test_a_step_is_out_when_it_is_sampled(self):
        self.assertEqual(self.after("execute_model", self.output()), 0)  # warm-up
        self.assertEqual(self.after("sample_tokens", None), 0)
        self.assertEqual(self.after("execute_model", self.output(1)), 0)
        self.assertEqual(self.after("sample_tokens", None), 1)
        self.assertEqual(self.after("execute_model", self.output(2)), 1)
        self.assertEqual(self.after("execute_model", self.output(3)), 2)

    def test_a_step_without_sampling_is_out_at_once(self):
        self.assertEqual(self.after("execute_model", self.output(1, tokens=0)), 1)
        self.worker.answer = Worker.answer = "pooled"
        self.addCleanup(setattr, Worker, "answer", None)
        self.assertEqual(self.after("execute_model", self.output(2)), 2)

    def test_no_step_runs_before_the_scheduler_decided(self):
        self.verdict = group_file.UNDECIDED
        self.worker.execute_model(self.output())
        self.assertEqual(self.gave_up, [])
        self.worker.execute_model(self.output(1))
        self.assertEqual(self.gave_up, ["the scheduler decided nothing", "backed"])

    def test_the_number_travels_with_the_output(self):
        sent = []

        class Executor:
            def execute_model(self, scheduler_output, non_block=False):
                sent.append((getattr(scheduler_output, vllm_group.STEP), non_block))
                return "future"

        core = types.SimpleNamespace(model_executor=Executor())
        ranks = types.SimpleNamespace(group=types.SimpleNamespace(step=0), balloon=None)
        vllm_group.Ranks.watch(ranks, core)
        self.assertEqual(core.model_executor.execute_model(self.output(), non_block=True), "future")
        core.model_executor.execute_model(self.output())
        self.assertEqual(sent, [(1, True), (2, False)])


if __name__ == "__main__":
    unittest.main()
