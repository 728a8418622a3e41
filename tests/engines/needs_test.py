"""What the vLLM adapter expects of a step before the scheduler makes it."""
import collections
import sys
import types
import unittest
import weakref

import worlds


class Running:
    is_prefill_chunk = False


class Ahead(unittest.TestCase):
    def test_requests_are_seen_wherever_they_wait(self):
        for queue in worlds.package.vllm_cache.WAITING:
            scheduler, needs = self.needs(dict(block_size=16), dict(block_size=16), **{queue: []})
            self.assertEqual(needs.look(scheduler)[:3], (0, 0, 0))
            self.assertTrue(needs.same(scheduler))
            setattr(scheduler, queue, [types.SimpleNamespace(num_tokens=40)])
            self.assertFalse(needs.same(scheduler))
            self.assertEqual(needs.look(scheduler), (2 * (3 + 1), 0, 2 * (3 + 1), 0))
            self.assertFalse(worlds.adapter.idle(scheduler))

    def test_the_most_that_a_step_takes(self):
        for specs, other, most, later in (
                ([dict(block_size=16)], {}, 1, 2),
                ([dict(block_size=16), dict(block_size=32)], {}, 2, 3),
                ([dict(block_size=16)], dict(num_spec_tokens=8, num_lookahead_tokens=8), 2, 18),
                ([dict(block_size=16, mamba_cache_mode="align")], {}, 2, 2)):
            with self.subTest(specs=specs, other=other):
                scheduler, needs = self.needs(*specs, **other)
                scheduler.running = [types.SimpleNamespace(is_prefill_chunk=False)] * 3
                self.assertEqual(needs.look(scheduler)[:3], (3 * most, 3 * later, 3 * most))

    def test_no_request_takes_more_blocks_of_a_group_than_the_engine_says(self):
        ring = dict(block_size=8, page_size_bytes=100, max_memory_usage_bytes=lambda config: 100)
        scheduler, needs = self.needs(dict(block_size=16), ring, waiting=[],
                                      max_num_scheduled_tokens=160)
        self.assertEqual([needs.blocks(n) for n in (1, 16, 160)], [2, 2, 11])
        self.assertEqual(needs.in_a_step(), 10 + 20, "of many requests")
        scheduler.running = [types.SimpleNamespace(is_prefill_chunk=True)] * 3
        self.assertEqual(needs.look(scheduler), (3 * 2 + 10 + 3, 3 * 3, 3 * 2 + 10 + 3, 0))
        scheduler.waiting = [types.SimpleNamespace(num_tokens=320)] * 2
        # Those who come in may take more than those who are in already.
        self.assertEqual(needs.look(scheduler)[0], 3 * 2 + 10 + 20)
        window = dict(ring, sliding_window=48)
        self.assertEqual(self.needs(window)[1].blocks(160), 20)

    def test_a_block_has_the_tokens_that_its_manager_counts(self):
        manager = types.SimpleNamespace(coordinator=types.SimpleNamespace(
            single_type_managers=[types.SimpleNamespace(block_size=64)]))
        _, needs = self.needs(dict(block_size=16), kv_cache_manager=manager)
        self.assertEqual(needs.blocks(128), 2)
        _, needs = self.needs(*[dict(block_size=16)] * 2, kv_cache_manager=manager)
        self.assertEqual(needs.blocks(128), 16)

    def test_who_is_in_prefill_is_seen_however_many_run(self):
        scheduler, needs = self.needs(dict(block_size=16))
        budget = 7
        running = scheduler.running = [types.SimpleNamespace(is_prefill_chunk=False)
                                       for _ in range(50)]
        self.assertEqual(needs.look(scheduler)[0], 50)
        running.append(types.SimpleNamespace(is_prefill_chunk=True))
        running.append(types.SimpleNamespace(is_prefill_chunk=False))
        self.assertEqual(needs.look(scheduler)[0], 52 + budget)
        del running[40:50]  # with who was last when nobody was in prefill
        self.assertEqual(needs.look(scheduler)[0], 42 + budget)
        running[-2].is_prefill_chunk = False
        self.assertEqual(needs.look(scheduler)[0], 42)
        running.append(types.SimpleNamespace(is_prefill_chunk=True))
        self.assertEqual(needs.look(scheduler)[0], 43 + budget)
        running.append(running.pop(41))  # the last of those that were not: preempted, and back
        running[-1].is_prefill_chunk = True
        running[-2].is_prefill_chunk = False
        self.assertEqual(needs.look(scheduler)[0], 43 + budget)
        del running[41:]
        running.append(types.SimpleNamespace(is_prefill_chunk=False))
        self.assertEqual(needs.look(scheduler)[0], 42)
        running.pop(0).is_prefill_chunk = True  # preempted: it comes back as the last
        running.append(types.SimpleNamespace(is_prefill_chunk=True))
        self.assertEqual(needs.look(scheduler)[0], 42 + budget)

    def test_many_that_wait_are_told_by_the_first(self):
        scheduler, needs = self.needs(dict(block_size=16), max_num_running_reqs=30,
                                      max_num_scheduled_tokens=160)
        scheduler.waiting = [types.SimpleNamespace(num_tokens=150) for _ in range(100)]
        needs = worlds.package.vllm_cache.Needs(scheduler)
        # 30 of them may come in, with 11 blocks each, 10 in this step and twice that prepared.
        # Who is not looked at may need more.
        self.assertEqual(needs.look(scheduler), (10, 20, worlds.package.vllm_cache.UNKNOWN, 0))

    def test_who_does_not_come_in_although_there_seemed_room(self):
        scheduler, _ = self.needs(dict(block_size=16))
        scheduler.waiting = [types.SimpleNamespace(num_tokens=40)]
        needs = worlds.package.vllm_cache.Needs(scheduler)
        self.assertEqual(needs.look(scheduler)[2], 4)
        self.assertEqual(needs.look(scheduler)[2], worlds.package.vllm_cache.UNKNOWN)
        scheduler.waiting.insert(0, types.SimpleNamespace(num_tokens=50))
        self.assertEqual(needs.look(scheduler)[2], worlds.package.vllm_cache.UNKNOWN,
                         "the other waits still")
        scheduler.waiting = [types.SimpleNamespace(num_tokens=60)]
        self.assertEqual(needs.look(scheduler)[2], 5)

    def test_a_line_by_priority_is_looked_at_without_taking_from_it(self):
        class Line:
            def __init__(self, heap):
                self._heap = heap

            def __len__(self):
                return len(self._heap)

            def __iter__(self):
                raise AssertionError("vLLM's own sorts the whole line")

        scheduler, _ = self.needs(dict(block_size=16), waiting=[])
        needs = worlds.package.vllm_cache.Needs(scheduler)
        for line in ([types.SimpleNamespace(num_tokens=40)],
                     Line([types.SimpleNamespace(num_tokens=50)])) * 2:
            needs.forget()
            scheduler.waiting = line
            self.assertEqual(needs.look(scheduler)[2], 5 if isinstance(line, Line) else 4)

    def test_what_it_cannot_read_is_an_error_and_nothing_is_kept(self):
        scheduler, needs = self.needs(dict(block_size=16), waiting=[])
        scheduler.running = [Running()]
        request = types.SimpleNamespace(num_tokens=40)
        scheduler.waiting = [request]
        before = [sys.getrefcount(o) for o in (request, scheduler, scheduler.running)]
        for _ in range(100):
            needs.look(scheduler)
            needs.same(scheduler)
            for wrong, kind in ((types.SimpleNamespace(), AttributeError),
                                (types.SimpleNamespace(num_tokens="x"), TypeError)):
                scheduler.waiting.append(wrong)
                self.assertRaises(kind, needs.look, scheduler)
                scheduler.waiting.remove(wrong)
        self.assertEqual(
            [sys.getrefcount(o) for o in (request, scheduler, scheduler.running)], before)
        settled = weakref.ref(scheduler.running[0])
        scheduler.running.clear()
        self.assertIsNotNone(settled(), "it could not be told from one at the same address")
        needs.forget()
        self.assertIsNone(settled())

    def test_a_line_that_contradicts_itself_is_an_error(self):
        class Line(list):
            def __iter__(self):
                return iter(())

        class Interrupted(list):
            @property
            def _heap(self):
                raise KeyboardInterrupt

        scheduler, needs = self.needs(dict(block_size=16), waiting=Line([1]))
        self.assertRaises(ValueError, needs.look, scheduler)
        scheduler.waiting = Interrupted([1])
        for _ in range(2):
            self.assertRaises(KeyboardInterrupt, needs.look, scheduler)

    def test_what_is_a_deque_is_read_without_its_own_python_code(self):
        calls = []

        class Line(collections.deque):
            def __len__(self):
                calls.append("len")
                return super().__len__()

            def __iter__(self):
                calls.append("iter")
                return super().__iter__()

        class Request:
            def __init__(self, tokens):
                self._all_token_ids = [0] * tokens

            @property
            def num_tokens(self):
                calls.append("tokens")
                return len(self._all_token_ids)

        scheduler, needs = self.needs(dict(block_size=16), waiting=Line())
        self.assertEqual(needs.look(scheduler)[2], 0)
        scheduler.waiting.append(Request(40))
        self.assertEqual(needs.look(scheduler)[2], 4)
        self.assertEqual(set(calls), {"len", "iter", "tokens"})
        scheduler.waiting.append(Request(50))
        needs.forget()
        self.assertEqual(needs.look(scheduler)[2], 9)
        del calls[:]
        scheduler.waiting = Line([Request(50), Request(60)])
        self.assertFalse(needs.same(scheduler))
        self.assertEqual(needs.look(scheduler)[2], 10)
        scheduler.waiting.clear()
        self.assertTrue(needs.same(scheduler))
        self.assertEqual(calls, [])
        before = sys.getrefcount(Line), sys.getrefcount(Request)
        scheduler.waiting = Line([Request(50)])
        for _ in range(100):
            needs.forget()
            self.assertEqual(needs.look(scheduler)[2], 5)
        scheduler.waiting.clear()
        self.assertEqual((sys.getrefcount(Line), sys.getrefcount(Request)), before)

    def test_what_counts_in_its_own_way_is_asked(self):
        class Longer(collections.deque):
            def __len__(self):
                return 1 + super().__len__()

        class Backwards(collections.deque):
            def __iter__(self):
                return super().__reversed__()

        class Pretender(list):
            __class__ = collections.deque

        class Padded:
            def __init__(self, tokens=40):
                self.num_tokens, self._all_token_ids = tokens, [0] * 20

        class Unlisted:
            num_tokens = 40

        class Uncounted:
            num_tokens = 40
            _all_token_ids = 7

        unknown = worlds.package.vllm_cache.UNKNOWN
        for line, surely in ((Longer([Unlisted(), Unlisted()]), unknown),
                             (Pretender([Unlisted(), Unlisted()]), 8), ([Padded()], 4),
                             ([Unlisted()], 4), ([Uncounted()], 4),
                             (collections.deque([Padded(), Unlisted()]), 8)):
            scheduler, needs = self.needs(dict(block_size=16), waiting=[])
            scheduler.waiting = line
            for _ in range(3):
                needs.forget()
                self.assertEqual(needs.look(scheduler)[2], surely)
        scheduler, needs = self.needs(dict(block_size=16), waiting=[],
                                      max_num_scheduled_tokens=10**6)
        for count, blocks in ((1, 2), (9, 8 * 11), (9, 8 * 11)):
            scheduler.waiting = Backwards(Padded(160 if i else 16) for i in range(count))
            needs.forget()
            # Of nine there is room for eight, of eleven blocks each: not for the first, of two.
            self.assertEqual(needs.look(scheduler)[0], blocks)

    def test_an_instance_without_what_the_others_have_is_asked(self):
        class Request:
            num_tokens = 40

            def __init__(self, listed):
                if listed:
                    self._all_token_ids = [0] * 40

        scheduler, needs = self.needs(dict(block_size=16), waiting=[Request(True)])
        for listed in (True, False, True):
            scheduler.waiting = [Request(listed)]
            needs.forget()
            self.assertEqual(needs.look(scheduler)[2], 4)

        class Interrupted:
            num_tokens = 40

            @property
            def _all_token_ids(self):
                raise KeyboardInterrupt
        scheduler.waiting = [Interrupted()]
        self.assertRaises(KeyboardInterrupt, needs.look, scheduler)

    def test_it_begins_once(self):
        demand = worlds.package.Demand()
        self.assertRaises(ValueError, demand.blocks, 1)

        def groups():
            demand.begin([], [(16, sys.maxsize)], 1, 0, 0, 8, 0, collections.deque)
            yield 32, sys.maxsize
        self.assertRaises(ValueError, demand.begin, [], groups(), 1, 0, 0, 8, 0,
                          collections.deque)
        for wrong in ([(32, sys.maxsize)], [(0, 1)], [(16, 0)]):
            self.assertRaises(ValueError, demand.begin, [], wrong, 1, 0, 0, 8, 0,
                              collections.deque)
        self.assertEqual([demand.blocks(n) for n in (-1, 0, 1, 16, 17, sys.maxsize)],
                         [0, 0, 1, 1, 2, sys.maxsize // 16 + 1])

    def needs(self, *specs, **other):
        groups = [types.SimpleNamespace(kv_cache_spec=types.SimpleNamespace(**s)) for s in specs]
        scheduler = types.SimpleNamespace(**dict(dict(
            kv_cache_config=types.SimpleNamespace(kv_cache_groups=groups), num_lookahead_tokens=0,
            running=[], max_num_running_reqs=8, max_num_scheduled_tokens=100), **other))
        return scheduler, worlds.package.vllm_cache.Needs(scheduler)


if __name__ == "__main__":
    unittest.main()
