"""What is looked at around each step of vLLM's scheduler, without an engine: _kvcached.Glance."""
import ctypes
import time
import types
import unittest

import worlds

Glance = worlds.package.Glance


class Request:
    def __init__(self, num_tokens=40):
        self.num_tokens = num_tokens
        self.is_prefill_chunk = False


class Looking(Glance):
    """As a balloon is, with 40 blocks in stripes of 8, and 100 more that are not there."""

    def __init__(self, scheduler, word=0, pressure=lambda: 0):
        blocks = [types.SimpleNamespace(block_id=i, ref_cnt=0, block_hash=None)
                  for i in range(41)]
        self.queue = worlds.package.striped_queue.StripedQueue(blocks, [(0, 9)] + [
            (first, 8) for first in range(9, 41, 8)], lambda count: None)
        self.queue.add(1, 40)
        self.cache = types.SimpleNamespace(pressure=pressure)
        self.withheld = 100
        self.keep_cached = 4
        self.sure = True
        self.begin(self.queue, word)
        self.needs = worlds.package.vllm_cache.Needs(scheduler)
        self.watch(self.needs)


def scheduler(running=0, waiting=0):
    return types.SimpleNamespace(
        running=[Request() for _ in range(running)], waiting=[Request() for _ in range(waiting)],
        max_num_running_reqs=64, max_num_scheduled_tokens=1024, num_lookahead_tokens=0,
        kv_cache_config=types.SimpleNamespace(kv_cache_groups=[
            types.SimpleNamespace(kv_cache_spec=types.SimpleNamespace(block_size=16))]))


class Before(unittest.TestCase):
    def test_a_step_for_which_all_is_there_needs_nothing_nor_do_those_like_it(self):
        engine = scheduler(running=3)
        looking = Looking(engine)
        looking.arrived, looking.idle, looking.keep = 7, True, 0
        self.assertTrue(looking.glance(engine))
        self.assertEqual((looking.arrived, looking.idle, looking.keep), (0, 0, 3))
        calm = looking.calm
        self.assertGreater(calm, 8)
        self.assertTrue(looking.glance(engine))
        self.assertEqual(looking.calm, calm - 1)
        engine.running.pop()
        self.assertTrue(looking.glance(engine), "one less takes no more")
        self.assertEqual(looking.calm, calm - 2)
        self.assertIsNone(looking.seen())

    def test_who_comes_is_looked_at_whatever_was_said_before(self):
        engine = scheduler(running=3)
        looking = Looking(engine)
        self.assertTrue(looking.glance(engine))
        engine.waiting.append(Request())
        self.assertTrue(looking.glance(engine), "there is enough for it")
        self.assertEqual(looking.calm, 0)
        engine.waiting = [Request(400), Request(400)]
        self.assertFalse(looking.glance(engine))

    def test_what_was_seen_is_told_once(self):
        engine = scheduler(waiting=40)
        looking = Looking(engine)
        expected = worlds.package.vllm_cache.Needs(engine).look(engine)
        self.assertFalse(looking.glance(engine))
        self.assertEqual(looking.seen(), expected)
        self.assertIsNone(looking.seen())

    def test_cached_blocks_are_there_beyond_their_limit_only(self):
        engine = scheduler(running=14)  # 14 now, 28 in the steps to come
        looking = Looking(engine)
        self.assertFalse(looking.glance(engine), "42 of 40")
        engine.running.pop()
        self.assertTrue(looking.glance(engine), "39 of 40, nothing of which is cached")
        held = looking.queue.popleft_n(40)
        for block in held:
            block.block_hash = b"known"
        looking.queue.append_n(held)
        looking.calm = 0
        self.assertFalse(looking.glance(engine), "39 of 40 - 4")
        looking.keep_cached = 1
        self.assertTrue(looking.glance(engine))

    def test_what_the_library_prepares_already_need_not_be_told_again(self):
        engine = scheduler(running=14)
        looking = Looking(engine)
        # 2 may be needed soon that are not there.
        for expected, told in ((0, False), (1, False), (2, True), (3, False), (30, False)):
            with self.subTest(expected=expected):
                looking.expected, looking.calm = expected, 0
                self.assertEqual(looking.glance(engine), told)
                self.assertEqual(looking.calm, 0)
        looking.keep_cached = 40
        held = looking.queue.popleft_n(18)
        for block in held:
            block.block_hash = b"known"
        looking.queue.append_n(held)  # so that 20 of 42 are lacking
        for expected, told in ((15, False), (16, True), (20, True), (26, True), (27, False)):
            with self.subTest(expected=expected):
                looking.expected = expected
                self.assertEqual(looking.glance(engine), told)
        looking.queue.popleft_n(9)
        self.assertFalse(looking.glance(engine), "13 for a step of 14")
        looking.withheld = looking.expected = 0
        self.assertTrue(looking.glance(engine), "more than there is cannot come")

    def test_what_speaks_against_it(self):
        for name, value in (("expected", 1), ("sure", False), ("blind", True), ("pinning", True)):
            with self.subTest(name):
                engine = scheduler(running=3)
                looking = Looking(engine)
                setattr(looking, name, value)
                self.assertFalse(looking.glance(engine))
        # Others may need more than who is looked at: enough for these is not enough for sure.
        engine = scheduler(waiting=9)
        engine.max_num_running_reqs = 2
        looking = Looking(engine)
        looking.withheld = 0
        self.assertTrue(looking.glance(engine))
        looking.withheld = 1
        self.assertFalse(looking.glance(engine))
        looking.sure = False
        self.assertTrue(looking.glance(engine), "as it was the last time")

    def test_a_scheduler_that_is_not_known_is_looked_at_by_others(self):
        engine = scheduler(running=3)
        looking = Looking(engine)
        self.assertTrue(looking.glance(engine))
        del engine.waiting
        self.assertFalse(looking.glance(engine), "by same()")
        looking.calm = 0
        self.assertFalse(looking.glance(engine), "by look()")
        self.assertIsNone(looking.seen())

    def test_without_anything_to_look_by(self):
        engine = scheduler(running=3)
        bare = Glance()
        self.assertFalse(bare.glance(engine))
        self.assertFalse(bare.rests(engine))
        self.assertIsNone(bare.seen())
        for call in (bare.to_be_had, lambda: bare.foresee(1, 2, 3, 4),
                     lambda: bare.watch(worlds.package.Demand())):
            self.assertRaises(ValueError, call)
        looking = Looking(engine)
        for wrong in (looking.needs, None, 1):
            self.assertRaises(ValueError, bare.begin, wrong, 0)
        self.assertRaises(TypeError, bare.begin, looking.queue)
        bare.begin(looking.queue, 0)
        self.assertFalse(bare.glance(engine), "nobody tells what it needs")
        for wrong in (looking.queue, None, 1):
            self.assertRaises(ValueError, bare.watch, wrong)
        self.assertRaises(ValueError, looking.begin, looking.queue, 0)  # a second time
        self.assertRaises(TypeError, looking.foresee, 1)

    def test_what_was_seen_is_judged_alike_when_it_is_told(self):
        engine = scheduler(running=14)
        looking = Looking(engine)
        looking.arrived, looking.idle, looking.sure = 7, True, False
        self.assertEqual(looking.to_be_had(), 40)
        self.assertEqual(looking.foresee(14, 28, 14, 32), 2)
        self.assertEqual((looking.keep, looking.calm, looking.sure, looking.arrived, looking.idle),
                         (14, 0, 1, 0, 0))
        self.assertEqual(looking.foresee(13, 26, 41, 32), 0)
        self.assertEqual((looking.keep, looking.calm, looking.sure), (13, 32, 0))
        self.assertEqual(looking.foresee(200, 0, 41, 32), 100, "more than is withheld cannot come")
        looking.withheld = 0
        self.assertEqual(looking.foresee(200, 0, 41, 32), 0)
        self.assertEqual((looking.calm, looking.sure), (0, 1))


class After(unittest.TestCase):
    def test_pressure_is_seen_where_the_library_tells_it(self):
        word = ctypes.c_uint64(0)
        engine = scheduler(running=3)
        looking = Looking(engine, ctypes.addressof(word), pressure=None)
        looking.calm = 3
        self.assertTrue(looking.rests(engine))
        word.value = 1
        self.assertFalse(looking.rests(engine))

    def test_a_cache_without_such_a_place_is_asked(self):
        answers = [0, 5]
        engine = scheduler(running=3)
        looking = Looking(engine, pressure=lambda: answers.pop(0))
        looking.calm = 3
        self.assertTrue(looking.rests(engine))
        self.assertFalse(looking.rests(engine))
        self.assertFalse(looking.rests(engine), "it failed")

    def test_a_step_unlike_the_last_is_followed_by_a_look_once_it_is_time(self):
        engine = scheduler(running=3)
        looking = Looking(engine)
        looking.hand_back_at = time.monotonic() + 60
        self.assertTrue(looking.rests(engine))
        looking.hand_back_at = time.monotonic()
        self.assertFalse(looking.rests(engine))
        looking.calm = 9
        self.assertTrue(looking.rests(engine))
        looking.calm = 16
        self.assertFalse(looking.rests(engine), "every eighth of those that are alike")

    def test_nothing_that_runs_or_drains_or_is_pinned(self):
        engine = scheduler(running=3)
        looking = Looking(engine)
        looking.calm = 3
        self.assertTrue(looking.rests(engine))
        looking.queue.popleft_n(3)
        looking.queue.condemn(1, 10, 1)
        self.assertFalse(looking.rests(engine))
        looking.queue.pardon()
        self.assertTrue(looking.rests(engine))
        engine.running.clear()
        self.assertFalse(looking.rests(engine))
        looking.pinning, looking.withheld = True, 1
        self.assertFalse(looking.rests(engine), "memory may have come")
        looking.withheld = 0
        self.assertTrue(looking.rests(engine))


if __name__ == "__main__":
    unittest.main()
