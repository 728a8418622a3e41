"""From the tensors of an engine to segments."""
import unittest

import worlds
from doubles import tensors

layout = worlds.package.layout
BLOCKS, PAGE = 40, 2 * 16 * 2 * 8 * 2  # K and V of 16 tokens, 2 heads of 8, 2 bytes
BASE = 0x10000


def raw(address=BASE, size=BLOCKS * PAGE):
    return tensors.Tensor(address, (size,), tensors.int8)


def segments(raws, views, blocks=BLOCKS):
    return layout.segments(layout.allocations(raws), views, blocks)


class Layout(unittest.TestCase):
    def test_blocks_first(self):
        memory = raw()
        view = memory.view(tensors.bfloat16).view((BLOCKS, 2, 16, 2, 8))
        self.assertEqual(segments([memory], [view]), [(BASE, PAGE, PAGE)])

    def test_a_tensor_a_layer(self):
        memories = [raw(BASE + i * 0x100000) for i in range(3)]
        views = [m.view(tensors.bfloat16).view((BLOCKS, 2, 16, 2, 8)) for m in memories]
        self.assertEqual(segments(memories, views), [(m.address, PAGE, PAGE) for m in memories])

    def test_all_keys_before_all_values(self):
        memory = raw()
        view = memory.view(tensors.bfloat16).view((2, BLOCKS, 16, 2, 8))
        half = PAGE // 2
        self.assertEqual(segments([memory], [view]),
                         [(BASE, half, half), (BASE + BLOCKS * half, half, half)])

    def test_heads_before_tokens(self):
        memory = raw()
        view = memory.view(tensors.bfloat16).view((BLOCKS, 2, 2, 16, 8)).permute(0, 1, 3, 2, 4)
        self.assertEqual(segments([memory], [view]), [(BASE, PAGE, PAGE)])

    def test_kernel_blocks_are_parts_of_a_block(self):
        memory = raw()
        view = memory.view(tensors.bfloat16).view((BLOCKS * 4, 2, 4, 2, 8))
        self.assertEqual(segments([memory], [view]), [(BASE, PAGE, PAGE)])

    def test_split_and_cut(self):
        memory = raw()
        view = memory.view(tensors.bfloat16).view((2, BLOCKS * 4, 4, 2, 8))
        half = PAGE // 2
        self.assertEqual(segments([memory], [view]),
                         [(BASE, half, half), (BASE + BLOCKS * half, half, half)])

    def test_padded_pages(self):
        padded = PAGE + 512
        memory = raw(size=BLOCKS * padded)
        view = tensors.Tensor(BASE, (BLOCKS, 2, 16, 2, 8), tensors.bfloat16,
                              (padded // 2, 256, 16, 8, 1))
        self.assertEqual(segments([memory], [view]), [(BASE, padded, padded)])

    def test_layers_packed_into_blocks(self):
        stride = 3 * PAGE
        memory = raw(size=BLOCKS * stride)
        views = [memory.view(-1, stride)[:, i * PAGE:(i + 1) * PAGE].view(tensors.bfloat16)
                 .view((BLOCKS, 2, 16, 2, 8)) for i in range(3)]
        self.assertEqual(segments([memory], views), [(BASE, stride, stride)])

    def test_layers_of_two_groups_share_a_tensor(self):
        memory = raw()
        views = [memory.view(tensors.bfloat16).view((BLOCKS, 2, 16, 2, 8)),
                 memory.view(tensors.bfloat16).view((BLOCKS, 2, 32, 1, 8))]
        self.assertEqual(segments([memory], views), [(BASE, PAGE, PAGE)])

    def test_latent_rows(self):
        row = 73728  # 64 tokens of 576 values
        memory = raw(size=BLOCKS * row)
        view = memory.view(tensors.bfloat16).view((BLOCKS, 64, 576))
        self.assertEqual(segments([memory], [view]), [(BASE, row, row)])

    def test_states_beside_each_other(self):
        memory = raw()
        states = [tensors.Tensor(BASE, (BLOCKS, 100), tensors.bfloat16, (PAGE // 2, 1)),
                  tensors.Tensor(BASE + 200, (BLOCKS, 50), tensors.bfloat16, (PAGE // 2, 1))]
        self.assertEqual(segments([memory], states), [(BASE, PAGE, PAGE)])

    def one_allocation(self, layers, layer_stride, block_stride, head_stride=PAGE // 2):
        """An allocation of so many layers with two heads, and their views of it."""
        memory = raw(size=layers * BLOCKS * PAGE)
        return memory, [memory.as_strided((BLOCKS, 2, PAGE // 2), (block_stride, head_stride, 1),
                                          i * layer_stride) for i in range(layers)]

    def test_one_allocation_by_layers(self):
        memory, views = self.one_allocation(3, PAGE * BLOCKS, PAGE)
        self.assertEqual(segments(views, views), [(BASE + i * PAGE * BLOCKS, PAGE, PAGE)
                                                  for i in range(3)])
        self.assertEqual(layout.allocations(views), {BASE: memory.numel()})

    def test_one_allocation_by_blocks(self):
        memory, views = self.one_allocation(3, PAGE, 3 * PAGE)
        self.assertEqual(segments(views, views), [(BASE, 3 * PAGE, 3 * PAGE)])

    def test_one_allocation_by_layers_and_heads(self):
        half = PAGE // 2
        _, views = self.one_allocation(2, PAGE * BLOCKS, half, head_stride=half * BLOCKS)
        self.assertEqual(segments(views, views), [(BASE + i * half * BLOCKS, half, half)
                                                  for i in range(4)])

    def test_groups_of_other_widths_in_one_allocation(self):
        memory = raw(size=3 * PAGE * BLOCKS)
        wide = memory.as_strided((BLOCKS, 2 * PAGE), (2 * PAGE, 1), 0)
        narrow = memory.as_strided((BLOCKS, PAGE), (PAGE, 1), 2 * PAGE * BLOCKS)
        self.assertEqual(segments([memory], [narrow, wide]),
                         [(BASE, 2 * PAGE, 2 * PAGE), (BASE + 2 * PAGE * BLOCKS, PAGE, PAGE)])

    def test_parts_of_a_block_are_one_segment(self):
        """A tail after the blocks, so that they do not fill their allocation."""
        memory = raw(size=PAGE * BLOCKS + 512)
        parts = [memory.as_strided((BLOCKS, length), (PAGE, 1), first)
                 for first, length in ((0, 100), (100, 200), (50, 100), (400, 24))]
        self.assertEqual(segments([memory], parts), [(BASE, PAGE, 424)])

    def test_parts_of_different_blocks_are_not(self):
        memory = raw(size=2 * PAGE * BLOCKS)
        parts = [memory.as_strided((BLOCKS, PAGE), (PAGE, 1), first)
                 for first in (0, PAGE // 2, BLOCKS * PAGE)]
        self.assertEqual(segments([memory], parts),
                         [(BASE + first, PAGE, PAGE) for first in (0, PAGE // 2, BLOCKS * PAGE)])

    def test_one_byte_an_element(self):
        memory = raw(size=BLOCKS * PAGE // 2)
        view = memory.view(tensors.float8).view((BLOCKS, 2, 16, 2, 8))
        self.assertEqual(segments([memory], [view]), [(BASE, PAGE // 2, PAGE // 2)])

    def test_what_is_not_understood(self):
        memory = raw()
        good = memory.view(tensors.bfloat16).view((BLOCKS, 2, 16, 2, 8))
        outside = tensors.Tensor(BASE + PAGE, good.shape, good.dtype)
        overlapping = tensors.Tensor(BASE, (BLOCKS, 2, 8), tensors.bfloat16, (8, 4, 1))
        scattered = tensors.Tensor(BASE, (BLOCKS, 65, 4), tensors.bfloat16, (4, 4 * BLOCKS, 1))
        for views, blocks, why in (([good], 41, "is 41 blocks"), ([outside], BLOCKS, "outside"),
                                   ([overlapping], BLOCKS, "blocks overlap"),
                                   ([scattered], BLOCKS, "65 runs of blocks"),
                                   ([good], 39, "is 39 blocks")):
            with self.subTest(why=why), self.assertRaisesRegex(layout.Unknown, why):
                segments([memory], views, blocks)
        with self.assertRaisesRegex(layout.Unknown, "no layer uses"):
            segments([memory, raw(BASE + 0x100000)], [good])


if __name__ == "__main__":
    unittest.main()
