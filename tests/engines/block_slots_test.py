"""How the free queue reads its blocks: from their slots, or by name where that may run code."""
import unittest

from queues import Block, SlottedBlock, make, numbers, striped_queue


class Slots(unittest.TestCase):
    """Blocks are read without a look-up by name where that comes to the same."""

    def made(self, kind):
        queue = make(kind=kind)
        queue.add(0, 10)
        return queue, queue.popleft_n(10)

    def known(self, queue, freed):
        """How many of these the queue takes for known ones."""
        before = queue.num_free_blocks - queue.fresh
        queue.append_n(freed)
        return queue.num_free_blocks - queue.fresh - before

    def test_slots_tell_what_the_attributes_do(self):
        queue, taken = self.made(SlottedBlock)
        for block in taken[2:5]:
            block.block_hash = block.block_id
        self.assertEqual(self.known(queue, taken), 3)
        self.assertEqual(numbers(queue.popleft_n(10)), [9, 8, 7, 6, 5, 1, 0, 2, 3, 4])

    @unittest.skipUnless(object.__basicsize__ == 16, "an interpreter without the lock")
    def test_they_are_read_where_they_lie(self):
        class Changed(SlottedBlock):
            __slots__ = ()

        queue, taken = self.made(Changed)
        # From now on whoever looks it up by name fails.
        Changed.block_id = Changed.block_hash = property(lambda block: 1 // 0)
        self.assertEqual(self.known(queue, taken), 0)
        self.assertEqual(queue.num_free_blocks, 10)

    def test_an_instance_of_another_type_is_asked(self):
        class Other(SlottedBlock):
            __slots__ = ()
            block_id = property(lambda block: SlottedBlock.block_id.__get__(block) - 100,
                                SlottedBlock.block_id.__set__)
            block_hash = property(lambda block: "known", lambda block, value: None)

        queue, taken = self.made(SlottedBlock)
        others = [Other(100 + block.block_id) for block in taken[:4]]
        self.assertEqual(self.known(queue, others + taken[4:]), 4)
        self.assertEqual(queue.num_free_blocks, 10)
        changed = queue.popleft_n(6)
        changed[0].__class__ = Other
        changed[0].block_id = 100 + 9
        self.assertEqual(self.known(queue, changed), 1)

    def test_what_reads_by_code_of_its_own_is_asked(self):
        class Everything(SlottedBlock):
            def __getattribute__(self, name):
                found = super().__getattribute__(name)
                return "known" if name == "block_hash" and found is None else found

        class OneProperty(SlottedBlock):
            block_hash = property(lambda block: SlottedBlock.block_hash.__get__(block) or "known",
                                  SlottedBlock.block_hash.__set__)

        class NotOnlyPython(striped_queue.FreeBlocks):
            __slots__ = SlottedBlock.__slots__

            def __init__(self, number):
                Block.__init__(self, number)
                self.block_hash = "known"

        for kind in (Everything, OneProperty, NotOnlyPython):
            with self.subTest(kind=kind):
                self.assertEqual(self.known(*self.made(kind)), 10)

    def test_an_empty_slot_is_as_an_attribute_that_is_missing(self):
        class Answering(SlottedBlock):
            __slots__ = ()

            def __getattr__(self, name):
                if name != "block_hash":
                    raise AttributeError(name)
                return "known"

        for name in ("block_hash", "block_id"):
            queue, taken = self.made(SlottedBlock)
            delattr(taken[5], name)
            for call in (lambda: queue.append_n(taken), lambda: queue.prepend_n(taken),
                         lambda: queue.append(taken[5])):
                self.assertRaises(AttributeError, call)
            self.assertEqual(queue.num_free_blocks, 0)
        queue, taken = self.made(Answering)
        del taken[5].block_hash, taken[6].block_hash
        self.assertEqual(self.known(queue, taken), 2)
        taken[9].block_id = "x"
        self.assertRaises(TypeError, queue.remove, taken[9])
        taken[9].block_id = 80
        self.assertRaises(ValueError, queue.remove, taken[9])

    def test_a_list_may_change_while_its_blocks_are_asked(self):
        class Emptying(Block):
            block_hash = property(lambda block: freed.clear(), lambda block, value: None)

        queue, freed = self.made(Emptying)
        queue.append_n(freed)
        self.assertEqual(queue.num_free_blocks, 1)

    def test_reading_a_block_may_free_others(self):
        class Hooked(Block):
            hook = None

            @property
            def block_hash(self):
                hook, self.hook = self.hook, None
                if hook:
                    hook()

            @block_hash.setter
            def block_hash(self, value):
                pass

        for free in ("append_n", "prepend_n"):
            queue = make(stripes=2, kind=Hooked)
            queue.add(0, 10)
            taken = queue.popleft_n(10)
            taken[4].hook = lambda: queue.append(taken[9])
            getattr(queue, free)(taken[:5])
            self.assertEqual((queue.num_free_blocks, queue.refused), (6, 0))
            taken[5].hook = lambda: getattr(queue, free)(taken[6:8])
            queue.append(taken[5])
            self.assertEqual((queue.num_free_blocks, queue.refused), (9, 0))


if __name__ == "__main__":
    unittest.main()
