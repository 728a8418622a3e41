"""The vLLM adapter on an engine core in this process: what a step may rely on, and equality with
the engine alone."""
import gc
import importlib
import os
import sys
import types
import unittest
import weakref
from unittest import mock

import worlds
from doubles import vllm_engine
from checks import ONE_ALLOCATION, VARIANTS, Checks, pass_through
from queues import condemned


class Plentiful(Checks):
    """With enough memory the engine does exactly what it does alone."""

    def setUp(self):
        os.environ["KVCACHED_PREFIX_CACHE"] = "100%"
        self.addCleanup(os.environ.pop, "KVCACHED_PREFIX_CACHE")

    def test_same_steps_and_outputs(self):
        for seed, settings in enumerate(VARIANTS):
            with self.subTest(settings=settings):
                self.compare(seed, 0.0, settings)

    def test_same_when_memory_comes_late(self):
        for seed, settings in enumerate(VARIANTS):
            with self.subTest(settings=settings):
                self.compare(100 + seed, 0.7, settings)

    def test_steady_decoding_calls_the_engines_own_functions(self):
        engine = worlds.Engine(worlds.Library())
        manager = engine.core.scheduler.kv_cache_manager
        for i in range(4):
            engine.add("r%d" % i, range(40), 60)
        wrapped = []
        engine.library.late = 1.0
        while engine.busy():
            engine.step()
            engine.library.late = 0.0
            wrapped.append("allocate_slots" in vars(manager))
        self.assertTrue(wrapped[0], "not sure before memory has come")
        self.assertFalse(any(wrapped[5:]))

    def test_memory_is_asked_for_when_a_request_arrives(self):
        engine = worlds.Engine(worlds.Library())
        engine.add("first", range(10), 2)
        engine.run()
        self.assertEqual(engine.cache.expected, 0)
        arriving = worlds.vllm_engine.Loose(prompt_token_ids=list(range(160)))
        for expected in (10, 20):
            try:
                engine.core.preprocess_add_request(arriving)
            except Exception:
                self.assertTrue(worlds.SITE)  # vLLM's own wants a whole request
            expected = min(expected, engine.balloon.needs.in_a_step())
            self.assertEqual(engine.cache.expected, expected - engine.balloon.queue.fresh)
        engine.add("second", range(10), 2)
        engine.step()
        self.assertLess(engine.cache.expected, 10)  # it has seen what came

    def test_nothing_is_prepared_for_requests_that_old_prefixes_make_room_for(self):
        with mock.patch.dict(os.environ, KVCACHED_PREFIX_CACHE="10%"):
            engine = worlds.Engine(worlds.Library())
        for i in range(12):
            engine.add("r%d" % i, range(i * 1000, i * 1000 + 100), 30)
        # Its last steps leave all of them cached, beyond what the prefix cache may keep.
        with mock.patch.object(engine.balloon, "settle"):
            engine.run()
        balloon = engine.balloon
        known = balloon.queue.num_free_blocks - balloon.queue.fresh - balloon.keep_cached
        self.assertGreater(known, 30)
        self.assertGreater(balloon.withheld, 30)
        balloon.arriving(16 * known)
        self.assertEqual(engine.cache.expected, 0)
        balloon.queue.popleft_n(balloon.to_be_had())
        balloon.arriving(16 * known)
        # No more than a step can take.
        self.assertEqual(engine.cache.expected, balloon.needs.in_a_step())

    def test_same_with_a_watermark(self):
        self.compare(7, 0.3, dict(caching=True, watermark=0.05))

    def test_a_running_request_needs_no_watermark(self):
        steps = []
        for library in (pass_through(), worlds.Library(late=1.0)):
            engine = worlds.Engine(library, blocks=34, caching=False, watermark=0.5)
            engine.add("r", range(100), 400)
            engine.run()
            steps.append(engine.steps)
        self.assertEqual(*steps)


class Short(Checks):
    """A pool that refuses looks like a smaller GPU: requests wait or are preempted, and all end."""

    def test_all_finish(self):
        for seed, settings in enumerate(VARIANTS):
            with self.subTest(settings=settings):
                self.check_all_finish(seed + 20, settings)

    def test_what_one_longest_request_takes_is_not_drained(self):
        library = worlds.Library(first_stripe=4, largest_stripe=32)
        engine = worlds.Engine(library, caching=False, max_model_len=16 * 96, budget=256)
        balloon, queue = engine.balloon, engine.balloon.queue
        for i in range(4):
            engine.add("r%d" % i, range(i * 1000, i * 1000 + 16 * 28), 16 * 20)
        while balloon.total - balloon.withheld <= balloon.least:
            engine.step()
        spare = balloon.total - balloon.withheld - balloon.least
        self.assertLess(spare, library.largest_stripe)
        library.pool_blocks = engine.cache.backed_blocks() - 1
        drained = set()
        while engine.busy():
            engine.step()
            if condemned(queue) - drained:
                drained |= condemned(queue)
                left = balloon.total - balloon.withheld - sum(map(queue.held, condemned(queue)))
                self.assertGreaterEqual(left, balloon.least)
        self.assertTrue(drained)

    def test_outputs_do_not_depend_on_memory(self):
        outputs = []
        for blocks in (45, 1 << 40):
            engine = worlds.Engine(worlds.Library(pool_blocks=blocks), caching=False)
            for i in range(12):
                engine.add("r%d" % i, range(i, i + 90), 40)
            engine.run()
            outputs.append(engine.outputs)
        self.assertEqual(*outputs)


class Schedulers(Checks):
    """A user may name another scheduler than vLLM's own."""

    def with_a_schedule_of_its_own(self, engine):
        class Own(type(engine.core.scheduler)):
            schedule = type(engine.core.scheduler).schedule.__wrapped__
        engine.core.scheduler.__class__ = Own
        return engine

    def test_one_that_overrides_schedule_grows_all_the_same(self):
        library = worlds.Library(first_stripe=4, largest_stripe=8)
        engine = self.with_a_schedule_of_its_own(worlds.Engine(library))
        self.run_some(engine)
        self.assertIsNone(engine.balloon.needs, "nothing is told before a step")
        self.assertGreater(engine.cache.releases, 0)

    def test_one_without_the_manager_that_we_know_gets_all_as_soon_as_there_is_memory(self):
        manager = sys.modules["vllm.v1.core.kv_cache_manager"].KVCacheManager
        for blocks in (8, 1000):
            with self.subTest(blocks=blocks):
                library = worlds.Library(first_stripe=4, largest_stripe=8, pool_blocks=blocks)
                with mock.patch.object(manager, "__init__", manager.__init__.__wrapped__), \
                        self.assertLogs("kvcached", "WARNING"):
                    engine = self.with_a_schedule_of_its_own(worlds.Engine(library))
                if blocks < 200:
                    self.assertRegex(library.states[-1], "^pinned, waiting for memory: ")
                    engine.add("r", range(160), 10)
                    engine.step()
                    engine.check()
                    library.pool_blocks = 1000
                    engine.balloon.retry_pin_at = 0
                    engine.run()
                self.assertEqual(library.states[-1], "pinned: a scheduler without KVCacheManager")
                self.assertIsNone(engine.balloon)
                self.run_some(engine)


class Limited(Checks):
    """An engine whose tenant can never have what its longest request would take."""

    def make(self, blocks, **settings):
        library = worlds.Library(pool_blocks=blocks, first_stripe=4, largest_stripe=8)
        library.limit = blocks * worlds.vllm_engine.block_bytes()
        return library, worlds.Engine(library, **settings)

    def test_longer_requests_are_refused_at_the_door(self):
        for settings in VARIANTS:
            with self.subTest(settings=settings):
                if not reports_greatest_length():
                    self.skipTest("this release does not tell its front end")
                _, engine = self.make(28, **settings)
                config = engine.config
                most = config.model_config.max_model_len
                self.assertLess(most, vllm_engine.MAX_MODEL_LEN)
                self.assertGreater(most, 16 * 20)
                # The longest that is accepted ends, beside others.
                engine.add("longest", range(most - 40), 39)
                engine.add("other", range(7000, 7300), 19)
                engine.run()
                engine.check()
                self.assertEqual({name: len(t) for name, t in engine.outputs.items()},
                                 {"longest": 39, "other": 19})

    def test_the_library_is_told_what_a_token_really_takes(self):
        library, engine = self.make(190)
        self.assertEqual(library.models[-1][-1], vllm_engine.block_bytes() / vllm_engine.BLOCK)
        self.assertTrue(engine.core._kvcached.registered)

    def test_what_the_limit_covers_is_left_alone(self):
        _, engine = self.make(190)
        self.assertEqual(engine.config.model_config.max_model_len,
                         vllm_engine.MAX_MODEL_LEN)


class ExpandableSegments(unittest.TestCase):
    def allocate(self, value, change):
        """What torch was told, in order, and where the tensors were made among it."""
        told = []
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = value
        self.addCleanup(os.environ.pop, "PYTORCH_CUDA_ALLOC_CONF")
        torch = sys.modules["torch"]
        torch.cuda.memory = types.SimpleNamespace(
            _set_allocator_settings=lambda text: change(told, text))
        self.addCleanup(delattr, torch.cuda, "memory")

        class Told(worlds.Library):
            def allocate(self, size):
                told.append("a tensor")
                return super().allocate(size)
        self.engine = worlds.Engine(Told())
        self.engine.add("a", range(100), 10)
        self.engine.run()
        self.engine.check()
        return [text for number, text in enumerate(told) if text not in told[:number]]

    def test_are_off_while_the_cache_is_made(self):
        value = "max_split_size_mb:128, expandable_segments:True"
        self.assertEqual(self.allocate(value, list.append),
                         ["expandable_segments:False", "a tensor", value])

    def test_of_no_interest(self):
        self.assertEqual(self.allocate("expandable_segments:False", list.append), ["a tensor"])

    def test_that_cannot_be_set(self):
        for refused in ("True", "False"):
            with self.subTest(refused=refused):
                def change(told, text, refused=refused):
                    told.append(text)
                    if text.endswith(refused):
                        raise ValueError(text)
                self.allocate("expandable_segments:True", change)
                self.assertTrue(self.engine.library.states[-1].startswith("elastic"))
                self.doCleanups()


class Trouble(Checks):
    """Whatever goes wrong, the engine runs on, and never on a block without memory."""

    def check_pinned(self, library, engine):
        self.assertIsNone(engine.balloon)
        self.assertEqual(set(library.elastic), library.whole)
        self.assertTrue(library.states[-1].startswith("pinned: "), library.states)
        self.run_some(engine)

    def test_a_pinned_engine_that_waits_for_memory_is_sure_of_nothing(self):
        library = worlds.Library(pool_blocks=8, first_stripe=4, largest_stripe=4)
        engine = worlds.Engine(library)
        engine.balloon.sure = True
        engine.balloon.fail(RuntimeError("as the test wants it"))
        self.assertTrue(engine.balloon.withheld)
        self.assertFalse(engine.balloon.sure)

    def test_a_line_that_is_gone_leaves_the_engine_growing_on_demand(self):
        engine = worlds.Engine(worlds.Library())
        scheduler, known = engine.core.scheduler, worlds.package.vllm_cache.WAITING
        scheduler.of_late = []
        engine.add("r", range(40), 60)
        with mock.patch.object(worlds.package.vllm_cache, "WAITING", (*known, "of_late")):
            while not engine.balloon.calm:
                engine.step()
        del scheduler.of_late
        engine.step()
        self.assertTrue(engine.balloon.blind)
        engine.run()
        engine.check()
        self.assertEqual(len(engine.outputs["r"]), 60)

    def test_refused_cache(self):
        library = worlds.Library()
        library.refuse_create = True
        with self.assertLogs("kvcached", "WARNING"):
            self.check_pinned(library, worlds.Engine(library))

    def test_part_of_the_tensors_is_plain(self):
        library = worlds.Library()
        if ONE_ALLOCATION:  # then there are no parts: it is elastic or all plain
            worlds.Engine(library)
            self.assertEqual(len(library.elastic), 1)
            return
        library.plain_allocations = {1}
        with self.assertLogs("kvcached", "WARNING"):
            self.check_pinned(library, worlds.Engine(library))

    def test_all_tensors_are_plain(self):
        library = worlds.Library()
        library.allocate = lambda size, plain=library.allocate: (
            library.tags.clear(), plain(size), library.tags.append("kv"))[1]
        engine = worlds.Engine(library)
        self.assertIsNone(engine.balloon)
        self.assertEqual(library.states, ["stock: torch took the memory elsewhere"])
        self.run_some(engine)

    def test_no_memory_for_pinning_yet(self):
        library = worlds.Library()
        library.refuse_create = library.refuse_whole = True
        with self.assertLogs("kvcached", "WARNING"):
            engine = worlds.Engine(library)
        self.assertEqual(engine.pool.get_num_free_blocks(), 0)
        engine.add("r", range(20), 5)
        for _ in range(5):
            engine.step()
        self.assertEqual(engine.outputs, {})
        library.refuse_whole = False
        engine.balloon.retry_pin_at = 0
        engine.run()
        self.assertEqual(len(engine.outputs["r"]), 5)
        self.check_pinned(library, engine)

    def test_a_failure_amid_work_pins(self):
        for call in ("settle", "ahead", "grow"):
            with self.subTest(call=call):
                library = worlds.Library()
                engine = worlds.Engine(library)

                def broken(*args, library=library, **kwargs):
                    library.late = 0
                    raise ZeroDivisionError
                library.late = 1.0 if call == "grow" else 0  # nothing is there without waiting
                setattr(engine.balloon, call, broken)
                with self.assertLogs("kvcached", "WARNING"):
                    self.run_some(engine)
                self.assertIsNone(engine.balloon)
                self.assertEqual(engine.cache.live, set(range(200)))
                self.assertTrue(library.states[-1].startswith("pinned: "))

    def test_a_library_that_fails_leaves_the_engine_what_it_has(self):
        engine = worlds.Engine(worlds.Library())
        engine.add("a", range(30), 5)
        engine.run()
        engine.balloon.grow(60)
        engine.cache.broken = True
        with self.assertLogs("kvcached", "WARNING"):
            engine.add("b", range(400), 20)
            engine.run()
        self.assertEqual(len(engine.outputs["b"]), 20)
        self.assertTrue(engine.free_blocks())
        engine.check()

    def test_a_library_that_passes_through(self):
        library = pass_through()
        engine = worlds.Engine(library)
        self.assertIsNone(engine.balloon)
        self.assertEqual(library.states, ["stock: the library passes through"])
        self.run_some(engine)

    def test_engines_that_cannot_be_served(self):
        for change, why in (
                (dict(parallel_config=dict(world_size=2)), "more than one GPU"),
                (dict(kv_transfer_config=object()), "a KV connector"),
                (dict(model_config=dict(enable_sleep_mode=True)), "the sleep-mode allocator")):
            with self.subTest(why=why):
                config = worlds.vllm_engine.config(100, True)
                for name, value in change.items():
                    if isinstance(value, dict):
                        vars(vars(config)[name]).update(value)
                    else:
                        setattr(config, name, value)
                self.assertEqual(self.serve(config), why)

    def serve(self, config, **kv_cache):
        sized = dict(dict(kv_cache_tensors=[1], num_blocks=100), **kv_cache)
        loose = worlds.vllm_engine.Loose
        return worlds.package.vllm_cache.serve(loose(vllm_config=config), loose(**sized))

    def test_caches_that_cannot_be_served(self):
        config = worlds.vllm_engine.config(100, True)
        for kv_cache, why in (
                (dict(), ""), (dict(num_blocks=1), "no KV cache"),
                (dict(kv_cache_tensors=[]), "no KV cache"),
                (dict(hisparse_host_num_blocks=10), "blocks on the host")):
            with self.subTest(kv_cache=kv_cache):
                self.assertEqual(self.serve(config, **kv_cache), why)

    def test_a_worker_without_its_scheduler(self):
        library = worlds.Library()
        worlds.adapter.library = library
        worker = worlds.vllm_engine.Loose()
        self.assertIn("different processes", worlds.adapter.refusal(worker, None))

    def test_of_an_engine_that_is_gone_nothing_stays(self):
        for library in (pass_through(), worlds.Library()):
            with self.subTest(off=library.off):
                engine = worlds.Engine(library)
                engine.add("r", range(40), 10)
                engine.run()
                core = engine.core
                core.structured_output_manager = worlds.vllm_engine.Loose(
                    clear_backend=lambda: None)
                worker = core.executor_double.worker if worlds.SITE else core.worker
                seen = [weakref.ref(each) for each in (
                    worker, engine.pool, engine.pool.free_block_queue)]
                balloon = engine.balloon  # as the thread that wakes an idle engine has it
                core.shutdown()
                del core, engine, worker
                gc.unfreeze()  # what the engine froze
                gc.collect()
                self.assertIsNone(seen[0](), "its memory must not wait for that thread")
                del balloon
                gc.collect()
                self.assertEqual([each() for each in seen], [None] * 3)

    def test_end_of_the_engine_leaves_the_pool_alone(self):
        engine = worlds.Engine(worlds.Library())
        engine.core.structured_output_manager = worlds.vllm_engine.Loose(
            clear_backend=lambda: None)
        engine.core.shutdown()
        self.assertIsNone(engine.balloon)
        self.assertEqual(engine.cache.releases, 0)


def reports_greatest_length():
    ready = getattr(importlib.import_module("vllm.v1.engine"), "EngineCoreReadyResponse", None)
    return "max_model_len" in getattr(ready, "__annotations__", ())


if __name__ == "__main__":
    unittest.main()
