"""What the tests of the vLLM adapter do with an engine, whatever its settings."""
import os
import random
import unittest

import worlds

LENGTH = worlds.vllm_engine.MAX_MODEL_LEN
FEW_STEPS = 600
STEPS = 3000 if os.environ.get("KVCACHED_STRESS") else FEW_STEPS


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


# Releases before 0.24 evict what was freed first, also before blocks without a hash. Blocks that
# went away and came back have lost their place in that order, so that the engines compared may
# only choose the same as long as there is nothing to evict.
OLDEST_FIRST = not hasattr(worlds.free_queue(), "prepend_n")
ONE_ALLOCATION = worlds.one_allocation()
UNEVICTED = 5 * FEW_STEPS  # blocks that all prefixes of so many steps fit into
VARIANTS = [dict(caching=caching, async_scheduling=later)
            for caching in (False, True) for later in ((False, True) if worlds.SITE else (False,))]


class Checks(unittest.TestCase):
    """What the tests below do with an engine of any settings."""

    def compare(self, seed, late, settings):
        roomy = settings["caching"] and OLDEST_FIRST
        settings = dict(settings, blocks=UNEVICTED if roomy else 200)
        stock = worlds.Engine(pass_through(), **settings)
        self.assertIsNone(stock.balloon)
        elastic = worlds.Engine(worlds.Library(seed=seed, late=late), **settings)
        load = Load(seed)
        for _ in range(FEW_STEPS if roomy else STEPS):
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

    def run_some(self, engine):
        for i in range(6):
            engine.add("s%d" % i, range(100), 20)
        engine.run()
        self.assertEqual([20] * 6, [len(engine.outputs["s%d" % i]) for i in range(6)])
        engine.check()


def pass_through():
    library = worlds.Library()
    library.off = True
    return library
