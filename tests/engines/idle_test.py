"""What an idle engine keeps of its memory, and what goes back when."""
import os
import sys
import time
import types
import unittest
from unittest import mock

import worlds
from checks import VARIANTS


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

    def test_without_requests_usage_is_0_whatever_the_size(self):
        for blocks in range(150, 260):
            self.assertEqual(worlds.Engine(worlds.Library(), blocks=blocks).pool.get_usage(), 0)

    def test_the_prefix_cache_keeps_what_its_cap_allows(self):
        for cap, most in (("0", 0), ("10%", 20), ("%d" % (8 * worlds.vllm_engine.block_bytes()), 8)):
            with self.subTest(cap=cap):
                os.environ["KVCACHED_PREFIX_CACHE"] = cap
                engine = worlds.Engine(worlds.Library(first_stripe=2, largest_stripe=4))
                self.burst(engine)
                cached = [b for b in engine.free_blocks() if b.block_hash is not None]
                self.assertGreater(engine.cache.told_evicted, 0)
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

    def hand_back(self, **pace):
        """What an engine that rests after a burst holds, after each time that it is woken."""
        os.environ["KVCACHED_PREFIX_CACHE"] = "0"
        for name, value in dict(pace, PAUSE=worlds.PAUSE).items():
            self.addCleanup(setattr, worlds.package.balloon, name,
                            getattr(worlds.package.balloon, name))
            setattr(worlds.package.balloon, name, value)
        engine = worlds.Engine(worlds.Library(first_stripe=2, largest_stripe=4), queued=True)
        self.addCleanup(engine.cache.destroy)
        for i in range(24):
            engine.add("r%d" % i, range(i * 1000, i * 1000 + 100), 60)
        engine.run()
        held = [engine.cache.backed_blocks()]
        self.assertGreater(held[0], 60, "nothing is in a hurry")
        while engine.balloon.crowded():
            self.assertTrue(engine.sleep(10), "the engine is woken")
            engine.check()
            held.append(engine.cache.backed_blocks())
        self.assertEqual(engine.cache.live, {0})
        return held

    def test_an_engine_that_is_woken_again_hands_back_little_by_little(self):
        held = self.hand_back(STRIPES_IDLE=4)
        self.assertGreater(len(held), 3)
        self.assertLessEqual(max(a - b for a, b in zip(held, held[1:])), 4 * 4)

    def test_an_idle_engine_keeps_what_it_has_for_a_while(self):
        begun = time.monotonic()
        held = self.hand_back(PATIENCE_IDLE=1.3)
        self.assertGreater(time.monotonic() - begun, 1.3)
        self.assertLessEqual(held[0] - held[1], 4, "in a hurry")

    def test_nothing_stays_prepared_for_a_request_that_never_came(self):
        engine = worlds.Engine(worlds.Library(), queued=True)
        self.addCleanup(engine.cache.destroy)
        engine.add("r", range(10), 2)
        engine.run()
        engine.balloon.arriving(16 * 10)
        self.assertGreater(engine.cache.expected, 0)
        self.assertTrue(engine.sleep(10), "the engine is woken")
        self.assertEqual((engine.cache.expected, engine.balloon.arrived), (0, 0))

    def test_what_two_threads_expect_at_once_is_told_in_the_end(self):
        engine = worlds.Engine(worlds.Library())
        balloon, cache = engine.balloon, engine.cache
        tell = cache.expect

        def interrupted(blocks):
            cache.expect = tell
            balloon.expect(0)  # the engine's thread, in between
            tell(blocks)
        cache.expect = interrupted
        balloon.expect(100)
        self.assertEqual((balloon.expected, cache.expected), (0, 0))

    def test_sparse_requests_do_not_keep_the_memory_of_a_burst(self):
        os.environ["KVCACHED_PREFIX_CACHE"] = "0"
        now = [0.0]
        clock = types.SimpleNamespace(monotonic=lambda: now[0])
        with mock.patch.object(worlds.package.balloon, "time", clock), \
                mock.patch.object(worlds.package.balloon, "PATIENCE_IDLE", 2.0), \
                mock.patch.object(worlds.package.balloon, "PAUSE", worlds.PAUSE):
            engine = worlds.Engine(worlds.Library(first_stripe=4, largest_stripe=4))
            engine.balloon.woken = True
            for i in range(24):
                engine.add("r%d" % i, range(i * 1000, i * 1000 + 100), 60)
            engine.run()
            self.assertGreater(engine.cache.backed_blocks(), 60)
            for i in range(60):
                for _ in range(10):
                    now[0] += 0.12
                    worlds.adapter.settle(engine.core)
                engine.add("p%d" % i, range(90000 + i * 100, 90000 + i * 100 + 20), 4)
                engine.run()
            self.assertLess(engine.cache.backed_blocks(), 20)

    def test_who_gives_back_looks_again_before_the_next_step(self):
        engine = worlds.Engine(worlds.Library(), caching=False)
        engine.add("r", range(100), 60)
        while not engine.balloon.calm:
            engine.step()
        balloon = engine.balloon
        balloon.grow(engine.library.largest_stripe + 1)
        balloon.keep = 0
        balloon._hand_back(0, 1, 0)
        self.assertEqual(balloon.calm, 0)

    def test_the_more_an_idle_engine_holds_the_more_goes_at_a_time(self):
        slow = self.hand_back(EVICTIONS_IDLE=4, EVICTIONS_IDLE_SHARE=0)
        fast = self.hand_back(EVICTIONS_IDLE=4, EVICTIONS_IDLE_SHARE=0.5)
        self.assertGreater(len(slow), 2 * len(fast))

    def test_a_waiting_peer_gets_what_only_the_prefix_cache_knows(self):
        os.environ["KVCACHED_PREFIX_CACHE"] = "100%"
        library = worlds.Library()
        engine = worlds.Engine(library, queued=True)
        self.addCleanup(engine.cache.destroy)
        self.burst(engine)
        self.assertFalse(engine.sleep(0.1), "nobody waits")
        library.pool_blocks = engine.cache.backed_blocks() - 20
        self.assertTrue(engine.sleep(10), "the engine is woken")
        engine.check()
        # As much as that takes, by whole stripes.
        self.assertLessEqual(engine.cache.backed_blocks(), library.pool_blocks)
        self.assertGreater(engine.cache.backed_blocks(),
                           library.pool_blocks - library.largest_stripe)

    @unittest.skipUnless(worlds.SITE, "needs vLLM's sources")
    def test_what_is_dropped_while_idle_is_told_at_once(self):
        os.environ["KVCACHED_PREFIX_CACHE"] = "100%"
        library, told = worlds.Library(), []
        engine = worlds.Engine(library, queued=True)
        self.addCleanup(engine.cache.destroy)
        scheduler = engine.core.scheduler
        scheduler.kv_event_publisher = types.SimpleNamespace(
            publish=lambda batch: told.extend(batch.events))
        with mock.patch.multiple(sys.modules[type(scheduler).__module__],
                                 KVEventBatch=types.SimpleNamespace):
            self.burst(engine)
            engine.pool.enable_kv_cache_events = True
            library.pool_blocks = engine.cache.backed_blocks() - 20
            self.assertTrue(engine.sleep(10), "the engine is woken")
            self.assertGreaterEqual(len(told), engine.cache.told_evicted)
            self.assertGreater(len(told), 0)
            scheduler.kv_event_publisher = None
            library.pool_blocks -= 20
            with self.assertLogs("kvcached", "INFO"):
                self.assertTrue(engine.sleep(10), "the engine is woken")
        self.assertFalse(engine.balloon.pinning)

    def test_an_engine_whose_steps_are_all_alike_gives_way_after_the_next(self):
        os.environ["KVCACHED_PREFIX_CACHE"] = "100%"
        library = worlds.Library()
        engine = worlds.Engine(library)
        self.burst(engine)
        engine.add("late", range(50000, 50020), 100)
        while engine.balloon.calm % 8 != 5:
            engine.step()
        before = engine.cache.backed_blocks()
        library.pool_blocks = before - 20
        engine.step()
        self.assertLess(engine.cache.backed_blocks(), before)

    def test_a_busy_engine_looks_what_may_go_back_now_and_then_only(self):
        library = worlds.Library()
        with mock.patch.object(worlds.package.balloon, "PAUSE", 60.0):
            engine = worlds.Engine(library)
            balloon = engine.balloon
            engine.add("first", range(40), 60)
            engine.step()
            with mock.patch.object(balloon, "settle", wraps=balloon.settle) as settle:
                for i in range(10):  # no step is like the one before
                    engine.add("r%d" % i, range(i * 100, i * 100 + 60), 20)
                    engine.step()
                self.assertEqual(settle.call_count, 0)
                library.pool_blocks = engine.cache.backed_blocks() - 20
                engine.step()
                self.assertEqual(settle.call_count, 1, "others wait")
                self.assertTrue(balloon.queue.condemned)
                library.pool_blocks = 1000
                engine.step()
                self.assertFalse(balloon.queue.condemned, "nobody waits any more")

    def test_a_busy_engine_drops_cached_blocks_before_it_drains(self):
        os.environ["KVCACHED_PREFIX_CACHE"] = "100%"
        library = worlds.Library()
        engine = worlds.Engine(library)
        self.burst(engine)
        library.pool_blocks = engine.cache.backed_blocks() - 20
        engine.add("late", range(50000, 50100), 30)
        for _ in range(4):
            engine.step()
        self.assertTrue(engine.busy())
        self.assertEqual(engine.balloon.queue.condemned, 0)
        self.assertLessEqual(engine.cache.backed_blocks(), library.pool_blocks)
        engine.run()
        engine.check()

    def test_a_reset_cache_gives_its_memory_back(self):
        os.environ["KVCACHED_PREFIX_CACHE"] = "100%"
        engine = worlds.Engine(worlds.Library())
        self.burst(engine)
        self.assertGreater(engine.balloon.queue.cached_only_blocks(), 10)
        self.assertTrue(engine.reset_prefix_cache())
        self.assertEqual(engine.cache.live, {0})


if __name__ == "__main__":
    unittest.main()
