"""The free queue by stripes: which block goes next, and books that agree after any sequence."""
import gc
import random
import sys
import unittest
import weakref

import worlds
from queues import Block, SlottedBlock, condemned, make, numbers, striped_queue


class Order(unittest.TestCase):
    def test_a_stripe_is_used_up_before_the_next_is_begun(self):
        queue = make()
        queue.add(0, 10)
        queue.add(10, 10)
        self.assertEqual(numbers(queue.popleft_n(12)), list(range(12)))

    def test_the_fullest_stripe_comes_first(self):
        queue = make()
        for stripe in range(3):
            queue.add(10 * stripe, 10)
        taken = queue.popleft_n(30)
        queue.prepend_n(taken[0:7] + taken[10:13] + taken[20:25])
        order = [queue.stripe_of(n) for n in numbers(queue.popleft_n(15))]
        self.assertEqual(order, [1] * 3 + [2] * 5 + [0] * 7)

    def test_unknown_blocks_go_before_known_ones_and_those_by_age(self):
        queue = make()
        queue.add(0, 10)
        taken = queue.popleft_n(10)
        for block in taken[:6]:
            block.block_hash = block.block_id
        queue.append_n([taken[3], taken[1]])
        queue.append_n([taken[5], taken[7]])
        queue.append_n([taken[2], taken[8]])
        self.assertEqual(numbers(queue.popleft_n(6)), [8, 7, 3, 1, 5, 2])

    def test_known_ones_that_come_first_as_the_engine_wants(self):
        queue = make()
        queue.add(0, 10)
        taken = queue.popleft_n(10)
        for block in taken[:6]:
            block.block_hash = block.block_id
        queue.append_n([taken[3], taken[1]])
        queue.prepend_n([taken[2], taken[5], taken[9]])
        self.assertEqual(numbers(queue.popleft_n(5)), [9, 2, 5, 3, 1])

    def test_it_asks_before_it_gives_known_blocks(self):
        asked = []

        def grow(count):
            asked.append(count)
            queue.add(10, 10)
        queue = make(before_evicting=grow)
        queue.add(0, 10)
        for block in queue.popleft_n(10):
            block.block_hash = 1
            queue.append(block)
        self.assertEqual(numbers(queue.popleft_n(4)), [10, 11, 12, 13])
        self.assertEqual(asked, [4])

    def test_known_blocks_beyond_the_limit_are_given_unasked(self):
        asked = []
        queue = make(before_evicting=asked.append, ask_below=6)
        queue.add(0, 10)
        for block in queue.popleft_n(10):
            block.block_hash = 1
            queue.append(block)
        self.assertEqual(numbers(queue.popleft_n(3)), [0, 1, 2])
        self.assertEqual(asked, [])
        queue.popleft_n(1)
        queue.popleft_n(2)
        self.assertEqual(asked, [2])

    def test_more_than_there_are_is_refused_and_nothing_taken(self):
        queue = make()
        queue.add(0, 10)
        with self.assertRaises(ValueError):
            queue.popleft_n(11)
        self.assertEqual(queue.popleft_n(0), [])
        self.assertEqual(queue.num_free_blocks, 10)


class Misuse(unittest.TestCase):
    """An engine's mistake costs nobody a block."""

    def setUp(self):
        self.queue = make()
        self.queue.add(0, 10)

    def test_what_is_freed_twice_stays_free_once_and_is_told(self):
        taken = self.queue.popleft_n(3)
        self.queue.append_n(taken)
        self.queue.append(taken[0])
        self.queue.prepend_n(taken[1:2])
        self.assertEqual(self.queue.refused, 2)
        self.assertEqual(self.queue.num_free_blocks, 10)
        self.assertEqual(len(set(numbers(self.queue.popleft_n(10)))), 10)

    def test_a_block_that_is_not_free_cannot_be_taken_out(self):
        block = self.queue.popleft()
        for other in (block, self.queue.blocks[70]):
            with self.assertRaises(ValueError):
                self.queue.remove(other)
        self.assertEqual(self.queue.num_free_blocks, 9)

    def test_what_is_no_block_or_stripe_is_refused(self):
        for call in (lambda: self.queue.add(75, 10), lambda: self.queue.add(0, 1),
                     lambda: self.queue.add(-1, 1), lambda: self.queue.forget([80]),
                     lambda: self.queue.withdraw(8), lambda: self.queue.held(-1),
                     lambda: self.queue.append(Block(80)), lambda: self.queue.append_n([None]),
                     lambda: self.queue.append_n(3), lambda: self.queue.popleft_n("x"),
                     lambda: self.queue.popleft_n(-1), lambda: self.queue.begin([], [], "x", 0, None)):
            with self.assertRaises((ValueError, TypeError, AttributeError, OverflowError)):
                call()
        self.assertEqual(numbers(self.queue.popleft_n(10)), list(range(10)))

    def test_an_error_of_who_is_asked_reaches_the_engine(self):
        self.queue.before_evicting = lambda count: 1 // 0
        with self.assertRaises(ZeroDivisionError):
            self.queue.popleft_n(11)
        self.assertEqual(self.queue.num_free_blocks, 10)

    def test_without_a_beginning_there_is_no_queue(self):
        bare = striped_queue.FreeBlocks()
        self.assertEqual(bare.num_free_blocks, 0)
        with self.assertRaises(ValueError):
            bare.popleft()


class Life(unittest.TestCase):
    def test_it_lets_go_of_the_blocks(self):
        queue = make()
        queue.add(0, 10)
        taken, seen = queue.popleft_n(2), weakref.ref(queue.blocks[5])
        queue.append_n(taken)
        queue.cycle = queue.before_evicting = queue.append
        del queue, taken
        gc.collect()
        self.assertIsNone(seen())

    def test_a_cycle_through_its_blocks_is_collected(self):
        class Pool:
            pass
        pool = Pool()
        pool.queue = make()
        pool.queue.add(0, 10)
        for block in pool.queue.blocks:
            block.pool = pool
        seen = weakref.ref(pool), weakref.ref(pool.queue), weakref.ref(block)
        del pool.queue.blocks, pool
        gc.collect()
        self.assertEqual(len(seen[1]().popleft_n(10)), 10, "a block that is held holds all")
        self.assertIs(seen[0](), block.pool)
        del block
        gc.collect()
        self.assertEqual([each() for each in seen], [None] * 3)

    def test_it_lets_go_of_its_type(self):
        for kind in (striped_queue.StripedQueue, striped_queue.FreeBlocks):
            make().popleft_n(0), striped_queue.FreeBlocks()
            gc.collect()
            before = sys.getrefcount(kind)
            for _ in range(50):
                queue = make()
                queue.cycle = queue
                striped_queue.FreeBlocks()
                del queue
            gc.collect()
            self.assertEqual(sys.getrefcount(kind), before)

    def test_it_lets_go_of_the_type_of_the_blocks(self):
        def use():
            queue = make(kind=SlottedBlock)
            queue.add(0, 10)
            queue.append_n(queue.popleft_n(5))
        use()
        gc.collect()
        before = sys.getrefcount(SlottedBlock)
        for _ in range(20):
            use()
        gc.collect()
        self.assertEqual(sys.getrefcount(SlottedBlock), before)

    def test_code_that_runs_while_blocks_are_taken_may_take_some(self):
        class Garbage:
            def __init__(self, queue, taken):
                self.cycle, self.queue, self.taken = self, queue, taken

            def __del__(self):
                self.taken += self.queue.popleft_n(1)

        threshold = gc.get_threshold()
        try:
            for _ in range(20):
                queue, more = make(), []
                queue.add(0, 10)
                kept = [[] for _ in range(200)]  # so that the next list is not an old one
                Garbage(queue, more)
                gc.set_threshold(1)
                taken = queue.popleft_n(4)
                gc.set_threshold(*threshold)
                gc.collect()
                self.assertEqual(len(set(numbers(taken + more))), 5)
                del kept
        finally:
            gc.set_threshold(*threshold)

    def test_calls_leave_no_references(self):
        for kind in (Block, SlottedBlock):
            with self.subTest(kind=kind):
                self.leave_no_references(make(kind=kind))

    def leave_no_references(self, queue):
        queue.add(0, 10)
        block = queue.blocks[0]

        def use():
            taken = queue.popleft_n(10)
            taken[0].block_hash = 1
            queue.append_n(taken[:5])
            queue.prepend_n(taken[5:])
            queue.remove(taken[0])
            queue.append(taken[0])
            queue.cached_in(0, 5), queue.stack(0), queue.ranges(0), queue.get_all_free_blocks()
            queue.forget([1, 2])
            queue.condemn(1, 10, 1)
            queue.pardon()
            taken[0].block_hash = None
            queue.forget_all()
            queue.append(queue.popleft())
            queue.add(10, 10)
            queue.withdraw(queue.empty()[0])
        use()
        block.block_hash = known = object()
        before = sys.getrefcount(block), sys.getrefcount(None)
        for _ in range(1000):
            use()
            block.block_hash = known
        self.assertEqual(sys.getrefcount(block), before[0])
        self.assertEqual(sys.getrefcount(known), 3)
        self.assertLess(abs(sys.getrefcount(None) - before[1]), 500)


class Age(unittest.TestCase):
    def test_a_stripe_is_as_old_as_its_last_block(self):
        queue = make(stripes=3)
        for stripe in range(3):
            queue.add(10 * stripe, 10)
        taken = queue.popleft_n(30)
        for block in taken:
            block.block_hash = block.block_id
        queue.append_n(taken[:29])
        self.assertEqual(queue.cached_only(), [0, 1], "one block of the last is live")
        queue.append_n(taken[29:])
        queue.remove(taken[3])  # used again
        queue.append(taken[3])
        self.assertEqual(queue.cached_only(), [1, 2, 0])


class Condemned(unittest.TestCase):
    def setUp(self):
        self.queue = make()
        for stripe in range(3):
            self.queue.add(10 * stripe, 10)
        taken = self.queue.popleft_n(30)
        self.queue.prepend_n(taken[3:10] + taken[12:20] + taken[29:])  # 3, 2 and 9 live

    def test_the_emptiest_stripes_give_no_blocks_any_more(self):
        self.queue.condemn(15, 80, 8)
        self.assertEqual(condemned(self.queue), {0, 1})
        self.assertEqual(numbers(self.queue.popleft_n(1)), [29])
        self.assertEqual(self.queue.num_free_blocks, 0)

    def test_they_drain_and_can_be_withdrawn(self):
        self.queue.condemn(5, 80, 8)
        self.assertEqual(condemned(self.queue), {1})
        self.queue.prepend_n([self.queue.blocks[10], self.queue.blocks[11]])
        self.assertEqual(self.queue.empty(), [1])
        self.assertEqual(self.queue.withdraw(1), [(10, 10)])
        self.assertEqual(self.queue.num_free_blocks, 8)

    def test_a_pardon_gives_all_back(self):
        free = self.queue.num_free_blocks
        self.queue.condemn(20, 80, 8)
        self.assertEqual(self.queue.num_free_blocks, 1)
        self.queue.pardon()
        self.assertEqual(self.queue.num_free_blocks, free)
        self.assertEqual(self.queue.fresh, free)


class Books(unittest.TestCase):
    """Random sequences, checked against what the blocks themselves say."""

    def play(self, seed):
        dice = random.Random(seed)
        queue, used, out = make(kind=(Block, SlottedBlock)[seed % 2]), [], set(range(8))

        def add(stripe):
            # In two pieces now and then, as an acquire may give it.
            first, cut = 10 * stripe, dice.choice((0, 3))
            if cut:
                queue.add(first, cut)
            queue.add(first + cut, 10 - cut)

        for _ in range(400):
            move = dice.randrange(8)
            if move == 0 and out:
                stripe = dice.choice(sorted(out))
                out.discard(stripe)
                add(stripe)
            elif move in (1, 2) and queue.num_free_blocks:
                taken = queue.popleft_n(dice.randrange(1, queue.num_free_blocks + 1))
                for block in taken:
                    block.block_hash = dice.choice((None, 1))
                    block.ref_cnt = 1
                used += taken
            elif move in (3, 4) and used:
                dice.shuffle(used)
                count = dice.randrange(1, len(used) + 1)
                freed, used = used[:count], used[count:]
                for block in freed:
                    block.ref_cnt = 0
                if dice.random() < 0.5:
                    queue.append_n(freed)
                else:
                    queue.prepend_n(freed)
            elif move == 5 and queue.num_free_blocks > queue.fresh:
                block = dice.choice(queue.get_all_free_blocks()[queue.fresh:])
                number = block.block_id
                if dice.random() < 0.5:
                    queue.remove(block)
                    block.ref_cnt = 1
                    used.append(block)
                else:
                    block.block_hash = None
                    queue.forget({number, 77})
            elif move == 6 and queue.cached_only() and dice.random() < 0.5:
                stripe = dice.choice(queue.cached_only())
                known = queue.cached_in(stripe, dice.randrange(1, 11))
                self.assertTrue(known and all(block.block_hash for block in known))
                for block in known:
                    block.block_hash = None
                queue.forget([block.block_id for block in known])
            elif move == 6 and queue.empty():
                stripe = dice.choice(queue.empty())
                for block in queue.stack(stripe):
                    block.block_hash = None
                ranges = queue.withdraw(stripe)
                self.assertEqual(sum(count for _, count in ranges), 10)
                out.add(stripe)
            elif move == 7 and dice.random() < 0.3:
                if dice.random() < 0.5:
                    queue.condemn(dice.randrange(80), dice.randrange(80), dice.randrange(1, 4))
                else:
                    queue.pardon()
            if dice.random() < 0.3:
                continue
            held = worlds.Engine.check_queue(queue, set(numbers(used)))
            self.assertEqual(held, {b for s in set(range(8)) - out
                                    for b in range(10 * s, 10 * s + 10)})
            self.assertEqual(set(numbers(queue.get_all_free_blocks())),
                             held - set(numbers(used)) - worlds.Engine.aside(queue))

    def test_any_sequence(self):
        for seed in range(40):
            with self.subTest(seed=seed):
                self.play(seed)


if __name__ == "__main__":
    unittest.main()
