"""The vLLM adapter on an engine core in this process: what a step may rely on, and equality with
the engine alone."""
import os
import random
import unittest

import worlds

LENGTH = worlds.vllm_engine.MAX_MODEL_LEN
STEPS = 3000 if os.environ.get("KVCACHED_STRESS") else 600


class Load:
    """A random stream of what happens to an engine, the same for every engine it is played to."""

    def __init__(self, seed, most_tokens=LENGTH):
        self.random = random.Random(seed)
        self.most_tokens = most_tokens
        self.prefixes = [[self.random.randrange(1000) for _ in range(200)] for _ in range(3)]
        self.names = 0

    def next(self):
        """(what, arguments)"""
        dice = self.random.random()
        if dice < 0.15:
            self.names += 1
            prompt = list(self.random.choice(self.prefixes)[:self.random.randrange(200)])
            prompt += [self.random.randrange(1000) for _ in range(self.random.randrange(1, 60))]
            room = self.most_tokens - len(prompt) - 1
            return "add", ("r%d" % self.names, prompt, self.random.randrange(1, min(room, 80)))
        if dice < 0.17 and self.names:
            return "abort", ("r%d" % self.random.randrange(max(1, self.names - 8),
                                                           self.names + 1),)
        if dice < 0.18:
            return "reset_prefix_cache", ()
        return "step", ()


def play(engine, what, arguments):
    if what != "step" or engine.busy():
        getattr(engine, what)(*arguments)


VARIANTS = [dict(caching=caching, async_scheduling=later)
            for caching in (False, True) for later in ((False, True) if worlds.SITE else (False,))]


class Plentiful(unittest.TestCase):
    """With enough memory the engine does exactly what it does alone."""

    def setUp(self):
        os.environ["KVCACHED_PREFIX_CACHE"] = "100%"
        self.addCleanup(os.environ.pop, "KVCACHED_PREFIX_CACHE")

    def compare(self, seed, late, settings):
        stock = worlds.Engine(pass_through(), **settings)
        self.assertIsNone(stock.balloon)
        elastic = worlds.Engine(worlds.Library(seed=seed, late=late), **settings)
        load = Load(seed)
        for _ in range(STEPS):
            move = load.next()
            for engine in (stock, elastic):
                play(engine, *move)
            elastic.check()
            self.assertEqual(stock.steps, elastic.steps)
            self.assertAlmostEqual(stock.pool.get_usage(), elastic.pool.get_usage())
            if len(stock.steps) > 50:
                del stock.steps[:], elastic.steps[:]
        for engine in (stock, elastic):
            engine.run()
        self.assertEqual(stock.outputs, elastic.outputs)
        self.assertGreater(len(elastic.outputs), 20)
        if not settings["caching"]:  # with it, all that was ever used is kept
            self.assertGreater(elastic.cache.releases, 5)

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
        while engine.busy():
            engine.step()
            wrapped.append("allocate_slots" in vars(manager))
        self.assertTrue(wrapped[0])
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
            self.assertEqual(engine.cache.expected, expected - engine.balloon.queue.fresh)
        engine.add("second", range(10), 2)
        engine.step()
        self.assertLess(engine.cache.expected, 10)  # it has seen what came

    def test_same_with_a_watermark(self):
        self.compare(7, 0.3, dict(caching=True, watermark=0.05))


class Short(unittest.TestCase):
    """A pool that refuses looks like a smaller GPU: requests wait or are preempted, and all end."""

    def check_all_finish(self, seed, settings):
        library = worlds.Library(seed=seed, late=0.5)
        engine = worlds.Engine(library, **settings)
        load, dice = Load(seed), random.Random(seed)
        wanted = {}
        for _ in range(STEPS):
            if dice.random() < 0.05:
                library.pool_blocks = dice.choice((40, 60, 100, 1 << 40))
            what, arguments = load.next()
            if what == "add":
                wanted[arguments[0]] = arguments[2]
            if what == "abort":
                wanted.pop(arguments[0], None)
            play(engine, what, arguments)
            engine.check()
        library.pool_blocks = 80
        engine.run()
        self.assertEqual(wanted, {n: len(t) for n, t in engine.outputs.items() if n in wanted})
        engine.check()

    def test_all_finish(self):
        for seed, settings in enumerate(VARIANTS):
            with self.subTest(settings=settings):
                self.check_all_finish(seed + 20, settings)

    def test_outputs_do_not_depend_on_memory(self):
        outputs = []
        for blocks in (45, 1 << 40):
            engine = worlds.Engine(worlds.Library(pool_blocks=blocks), caching=False)
            for i in range(12):
                engine.add("r%d" % i, range(i, i + 90), 40)
            engine.run()
            outputs.append(engine.outputs)
        self.assertEqual(*outputs)


class Idle(unittest.TestCase):
    def setUp(self):
        self.addCleanup(os.environ.pop, "KVCACHED_PREFIX_CACHE", None)

    def burst(self, engine):
        for i in range(12):
            engine.add("r%d" % i, range(i * 1000, i * 1000 + 100), 30)
        engine.run()
        engine.check()

    def test_all_memory_goes_back_without_a_prefix_cache(self):
        for settings in VARIANTS:
            if settings["caching"]:
                continue
            with self.subTest(settings=settings):
                engine = worlds.Engine(worlds.Library(), **settings)
                self.burst(engine)
                self.assertEqual(engine.cache.live, {0})
                self.assertEqual(engine.pool.get_usage(), 0)

    def test_the_prefix_cache_keeps_what_its_cap_allows(self):
        for cap, most in (("0", 0), ("10%", 20), ("%d" % (8 * engine_block_bytes()), 8)):
            with self.subTest(cap=cap):
                os.environ["KVCACHED_PREFIX_CACHE"] = cap
                engine = worlds.Engine(worlds.Library(first_stripe=2, largest_stripe=4))
                self.burst(engine)
                cached = [b for b in engine.free_blocks() if b.block_hash is not None]
                self.assertLessEqual(len(cached), most)
                self.assertGreaterEqual(len(cached), most // 2)
                # Blocks that nobody knows do not stay beside them, but for those in their stripes.
                self.assertLessEqual(len(engine.free_blocks()), most + 4)

    def test_a_cached_prefix_is_found_again(self):
        os.environ["KVCACHED_PREFIX_CACHE"] = "50%"
        engine = worlds.Engine(worlds.Library())
        engine.add("a", range(100), 1)
        engine.run()
        del engine.steps[:]
        engine.add("b", range(100), 1)
        engine.run()
        self.assertEqual(engine.steps[0], {"b": 100 - 96})

    def test_a_bad_cap_is_the_default(self):
        os.environ["KVCACHED_PREFIX_CACHE"] = "banana"
        engine = worlds.Engine(worlds.Library())
        self.assertEqual(engine.balloon.keep_cached, 10)

    def test_a_reset_cache_gives_its_memory_back(self):
        os.environ["KVCACHED_PREFIX_CACHE"] = "100%"
        engine = worlds.Engine(worlds.Library())
        self.burst(engine)
        self.assertGreater(len(engine.balloon.queue.cached), 10)
        self.assertTrue(engine.reset_prefix_cache())
        self.assertEqual(engine.cache.live, {0})


class Trouble(unittest.TestCase):
    """Whatever goes wrong, the engine runs on, and never on a block without memory."""

    def run_some(self, engine):
        for i in range(6):
            engine.add("s%d" % i, range(100), 20)
        engine.run()
        self.assertEqual([20] * 6, [len(engine.outputs["s%d" % i]) for i in range(6)])
        engine.check()

    def check_pinned(self, library, engine):
        self.assertIsNone(engine.balloon)
        self.assertEqual(set(library.elastic), library.whole)
        self.assertTrue(library.states[-1].startswith("pinned: "), library.states)
        self.run_some(engine)

    def test_refused_cache(self):
        library = worlds.Library()
        library.refuse_create = True
        with self.assertLogs("kvcached", "WARNING"):
            self.check_pinned(library, worlds.Engine(library))

    def test_part_of_the_tensors_is_plain(self):
        library = worlds.Library()
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
                worker = worlds.vllm_engine.Loose(vllm_config=config)
                sized = worlds.vllm_engine.Loose(kv_cache_tensors=[1], num_blocks=100)
                self.assertEqual(worlds.package.vllm_cache.serve(worker, sized), why)

    def test_a_worker_without_its_scheduler(self):
        library = worlds.Library()
        worlds.adapter.library = library
        worker = worlds.vllm_engine.Loose()
        self.assertIn("different processes", worlds.adapter.refusal(worker, None))

    def test_end_of_the_engine_leaves_the_pool_alone(self):
        engine = worlds.Engine(worlds.Library())
        engine.core.structured_output_manager = worlds.vllm_engine.Loose(
            clear_backend=lambda: None)
        engine.core.shutdown()
        self.assertIsNone(engine.balloon)
        self.assertEqual(engine.cache.releases, 0)


def pass_through():
    library = worlds.Library()
    library.off = True
    return library


def engine_block_bytes():
    return worlds.vllm_engine.PAGE * worlds.vllm_engine.LAYERS


if __name__ == "__main__":
    unittest.main()
