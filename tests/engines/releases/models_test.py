"""The adapter on one release of vLLM with models that keep their KV cache in every way it has:
where blocks lie, and whole engines."""
import bisect
import itertools
import os
import pathlib
import sys
import traceback
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import checks  # noqa: E402
import worlds  # noqa: E402
from doubles import models  # noqa: E402

BLOCKS = 29  # no other dimension of a view is a multiple of it
ALLOCATORS = ("attn_utils.py", "gpu_model_runner.py", "kv_cache_interface.py",
              "single_type_kv_cache_manager.py")
# Of which a request is counted with less for its last tokens than for its first.
UNEVEN = {"hybrid", "block sizes", "recurrent", "rings"}
BROKEN = {"sinks"}  # some releases cannot construct them


def ways(model):
    """Settings for all ways in which this release can lay out `model`, and in which not."""
    for v2, layout in itertools.product(
            (True, False), ("LBNHC", "BLHNC") if checks.ONE_ALLOCATION else ("LBNHC",)):
        yield dict(model=model, v2=v2, layout=layout)


def possible(settings):
    """Whether vLLM itself can allocate that; what it cannot is not asked of the adapter."""
    try:
        worlds.Engine(checks.pass_through(), **settings)
    except (AssertionError, TypeError, ValueError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        if os.path.basename(last) not in ALLOCATORS:
            raise
        return False
    return True


def possible_ways(model):
    return [settings for settings in ways(model) if possible(settings)]


def intervals_of(view, dim, index):
    """The bytes [first, last) of the slice `index` in dimension `dim`, row by row."""
    item, shape, strides = view.element_size(), list(view.shape), list(view.stride())
    base = view.data_ptr() + index * strides.pop(dim) * item
    shape.pop(dim)
    row = item
    if strides and strides[-1] == 1:
        row = shape.pop() * item
        strides.pop()
    for place in itertools.product(*map(range, shape)):
        first = base + sum(i * s for i, s in zip(place, strides)) * item
        yield first, first + row


class Where(unittest.TestCase):
    """Segments against what kernels touch, byte by byte."""

    def check(self, settings):
        library = worlds.Library(first_stripe=2, largest_stripe=4)
        engine = worlds.Engine(library, blocks=BLOCKS, max_model_len=64, **settings)
        self.assertRegex(library.states[-1], "^elastic: ")
        of_block = [sorted((base + block * stride, base + block * stride + size)
                           for base, stride, size in engine.cache.segments)
                    for block in range(BLOCKS)]
        for base, _, size in engine.cache.segments:
            self.assertEqual(library.resident(base, size)[0], 0)
        views = []
        for view in engine.core.executor_double.worker.model_runner.views.values():
            views.extend(view if isinstance(view, (list, tuple)) else [view])
        for view in views:
            dim = next(d for d, n in enumerate(view.shape) if n % BLOCKS == 0)
            cut = view.shape[dim] // BLOCKS
            for index in range(view.shape[dim]):
                inside = of_block[index // cut]
                for first, last in intervals_of(view, dim, index):
                    at = bisect.bisect(inside, (first, 1 << 62)) - 1
                    self.assertTrue(at >= 0 and last <= inside[at][1],
                                    (settings, view.shape, index, first))
        everywhere = sorted(span for spans in of_block for span in spans)
        overlaps = [a for a, b in zip(everywhere, everywhere[1:]) if a[1] > b[0]]
        self.assertEqual(overlaps, [], "blocks share bytes")

    def test_every_model_is_possible_and_its_blocks_are_where_we_think(self):
        for model in filter(models.known, models.MODELS):
            found = possible_ways(model)
            self.assertTrue(found or model in BROKEN, model)
            for settings in found:
                with self.subTest(settings=settings):
                    self.check(settings)

    def test_keys_before_values(self):
        for v2 in (True, False):
            for model in ("plain", "hybrid"):
                with self.subTest(v2=v2, model=model):
                    self.check(dict(model=model, v2=v2, backend=models.SplitBackend))

    def test_heads_before_tokens_or_blocks(self):
        if checks.ONE_ALLOCATION:
            found = [dict(layout=layout) for layout in ("LBHNC", "LHBNC", "BHLNC")]
        else:
            found = [dict(backend=models.HeadsFirstBackend)]
        for settings in found:
            with self.subTest(settings=settings):
                self.check(settings)

    def test_kernels_that_cut_blocks(self):
        self.check(dict(model="plain", v2=False, cut=2))
        self.check(dict(model="hybrid", v2=False, cut=4))


class Engines(checks.Checks):
    """The V1 and V2 runners give the scheduler the same work, so one of them will do."""

    def settings(self):
        for model in filter(models.known, models.MODELS):
            for settings in possible_ways(model)[-1:]:
                yield dict(settings, caching=True)
        for caching, later in itertools.product((False, True), (False, True)):
            yield dict(possible_ways("hybrid")[0], caching=caching, async_scheduling=later)

    def test_same_steps_with_enough_memory(self):
        os.environ["KVCACHED_PREFIX_CACHE"] = "100%"
        self.addCleanup(os.environ.pop, "KVCACHED_PREFIX_CACHE")
        for seed, settings in enumerate(self.settings()):
            with self.subTest(settings=settings):
                self.compare(seed, 0.3, settings)

    def test_all_finish_when_memory_is_short(self):
        for seed, settings in enumerate(self.settings()):
            with self.subTest(settings=settings):
                self.check_all_finish(50 + seed, settings)

    def test_what_is_kept_for_a_longest_request_is_what_it_takes(self):
        for model in filter(models.known, models.MODELS):
            for settings in possible_ways(model)[-1:]:
                with self.subTest(settings=settings):
                    engine = worlds.Engine(worlds.Library(), caching=False, **settings)
                    engine.add("r", range(checks.LENGTH - 20), 20)
                    most, least = 0, engine.balloon.least
                    while engine.busy():
                        engine.step()
                        most = max(most, engine.balloon.in_use() - len(engine.sinks()))
                    self.assertLessEqual(most, least)
                    *_, longest, _, per_token = engine.library.models[-1]
                    told = per_token * longest / engine.core._kvcached.block_bytes()
                    self.assertTrue(most <= told <= least, (most, told, least))
                    self.assertEqual(engine.core._kvcached.registered, model not in UNEVEN)
                    groups = engine.core.scheduler.kv_cache_config.kv_cache_groups
                    if not any(map(worlds.package.vllm_cache.layer_window, (
                            spec for group in groups
                            for spec in worlds.package.vllm_cache.layer_specs(group)))):
                        self.assertLessEqual(least, most + 2 * len(groups))

    def test_sinks_stay_and_all_else_goes_back(self):
        if not possible_ways("sinks"):
            self.assertFalse(possible(dict(model="sinks")))
            return
        engine = worlds.Engine(worlds.Library(first_stripe=1, largest_stripe=4), model="sinks",
                               caching=False)
        engine.check()
        for i in range(8):
            engine.add("r%d" % i, range(i, i + 100), 20)
        engine.run()
        engine.check()
        self.assertLessEqual({block.block_id for block in engine.sinks()}, engine.cache.live)
        self.assertLessEqual(len(engine.cache.live), 8)

    def test_windows_leave_null_blocks(self):
        engine = worlds.Engine(worlds.Library(), model="hybrid")
        engine.add("r", range(200), 50)
        seen = set()
        while engine.busy():
            engine.step()
            engine.check()
            if engine.core.scheduler.running:
                ids = engine.core.scheduler.kv_cache_manager.get_block_ids("r")
                seen.add(tuple(0 in group for group in ids))
        self.assertIn((False, True, True), seen)


if __name__ == "__main__":
    unittest.main()
