"""The protocol between a scheduler and its ranks, every turn of it by hand: whatever the order in
which they come to look, what is offered is held by all, and nothing goes before its step."""
import fcntl
import os
import pathlib
import random
import struct
import tempfile
import time
import types
import unittest

import worlds

group, group_file, group_rank = (getattr(worlds.package, name)
                                 for name in ("group", "group_file", "group_rank"))
client = worlds.package.client
STRESS = bool(os.environ.get("KVCACHED_STRESS"))


def die(file, byte):
    """Unlocks what the kernel unlocks when a process dies."""
    unlock = struct.pack("hhqqi4x", 2, 0, byte, 1, 0)
    fcntl.fcntl(file.descriptor, worlds.package.shared_file._OFD_SETLK, unlock)


class Cache:
    """A rank's cache: at most `most` blocks."""

    def __init__(self, ends):
        self.ends = ends
        self.most = 1 << 60
        self.live = {}  # first block -> count
        self.expected = 0
        self.told_in_use = 0
        self.pressed = 0

    def stripes(self):
        return client.OK, list(zip([0] + self.ends[:-1],
                                   [e - s for s, e in zip([0] + self.ends[:-1], self.ends)]))

    def acquire_ranges(self, ranges, wait_ms):
        (first, count), = ranges
        assert first not in self.live and count > 0
        if sum(self.live.values()) + count > self.most:
            return client.SHORT
        self.live[first] = count
        return client.OK

    def release(self, ranges):
        (first, count), = ranges
        assert self.live.pop(first) == count
        return client.OK

    def expect(self, blocks):
        self.expected = blocks

    def in_use(self, blocks):
        self.told_in_use = blocks

    def pressure(self):
        return self.pressed


class World:
    ENDS = [2, 4, 8, 16, 24, 32, 40, 48, 56, 64]

    def __init__(self, ranks, ends=None, seed=0, turns=True):
        self.random = random.Random(seed)
        self.folder = tempfile.TemporaryDirectory()
        os.environ["KVCACHED_DIR"] = self.folder.name
        file = group_file.create(ranks)
        self.group = group.Group(file)
        self.texts = [[] for _ in range(ranks)]
        self.ranks = [group_rank.Rank(group_file.join(file.path, r), r, self.texts[r].append)
                      for r in range(ranks)]
        for index, rank in enumerate(self.ranks):
            cache = Cache((ends or [self.ENDS] * ranks)[index])
            rank.offer(cache, 64, 640, 8, 1, lambda why: True)
        file.unlink()
        # While the scheduler waits, ranks come to look, or time passes.
        if turns:
            file.wait = lambda rank, bell, seconds: [self.turn() for _ in range(3)]

    def close(self):
        os.environ.pop("KVCACHED_DIR", None)
        self.folder.cleanup()

    def start(self):
        assert self.group.agree(64, 1) == ""
        self.group.decide(group_file.ELASTIC)

    def turn(self):
        self.random.choice(self.ranks)._look()

    def all_look(self):
        for rank in self.ranks:
            while rank._look() == 0:
                pass


class Protocol(unittest.TestCase):
    def world(self, *args, **kwargs):
        world = World(*args, **kwargs)
        self.addCleanup(world.close)
        return world

    def check(self, world, uses):
        for stripe in world.group.offered:
            for rank in world.ranks:
                self.assertTrue(rank.held[stripe])
        for rank in world.ranks:
            for step in range(rank.launched + 1, world.group.step + 1):
                for stripe in uses[step]:
                    self.assertTrue(rank.held[stripe], "let go before step %d" % step)
            live = {first for first, held in zip((s[0] for s in rank.spans), rank.held) if held}
            self.assertEqual(live, set(rank.cache.live))

    def live_random(self, seed):
        world = self.world(2 + seed % 3, seed=seed)
        world.start()
        world.all_look()
        dice, members, uses, offered = world.random, world.group, {}, 0
        for _ in range(4000 if STRESS else 700):
            what = dice.randrange(12)
            if what < 2:
                blocks, wait = dice.randrange(1, 30), dice.choice((0, 20))
                code, ranges = members.acquire(blocks, wait)
                got = sum(count for _, count in ranges)
                self.assertEqual(code, client.OK if got >= blocks else client.SHORT)
                offered += len(ranges)
            elif what < 4 and members.offered:
                some = dice.sample(sorted(members.offered),
                                   dice.randrange(1, len(members.offered) + 1))
                self.assertEqual(members.release([members.parts[s] for s in some]), client.OK)
            elif what == 4:
                members.in_use(dice.choice((0, 5)))
            elif what == 5:
                dice.choice(world.ranks).cache.most = dice.choice((10, 30, 64, 1 << 60))
                members.paused_until = 0
            elif what == 6 and members.step < max(r.launched for r in world.ranks) + 4:
                # The engine's own process of it: what is used is offered now.
                uses[members.step + 1] = set(members.offered)
                members.step += 1
            elif what < 9:
                rank = dice.choice(world.ranks)
                if rank.launched < members.step:
                    rank.launch(rank.launched + 1)
            else:
                world.turn()
            self.check(world, uses)
        self.assertGreater(offered, 50)
        members.release([members.parts[s] for s in members.offered])
        members.in_use(0)
        for rank in world.ranks:
            rank.launch(members.step)
        world.all_look()
        self.assertEqual([rank.cache.live for rank in world.ranks], [{}] * len(world.ranks))
        self.assertEqual(sorted(members.free), list(range(len(World.ENDS))))

    def test_any_order(self):
        for seed in range(30 if STRESS else 9):
            with self.subTest(seed=seed):
                self.live_random(seed)

    def test_one_refusal_rolls_back_all(self):
        world = self.world(3)
        world.start()
        world.ranks[1].cache.most = 5
        code, ranges = world.group.acquire(20, 50)
        self.assertEqual((code, ranges), (client.SHORT, [(1, 1), (2, 2)]))
        world.all_look()
        for rank in world.ranks:
            self.assertEqual(rank.cache.live, {1: 1, 2: 2})
        # Nothing is tried for a while, and then all of it again.
        self.assertEqual(world.group.acquire(20, 50), (client.SHORT, []))
        world.ranks[1].cache.most = 64
        time.sleep(group.PAUSE)
        self.assertEqual(world.group.acquire(12, 50), (client.OK, [(4, 4), (8, 8)]))

    def test_the_lowest_come_first_and_a_pinned_block_never(self):
        world = self.world(2)
        world.start()
        self.assertEqual(world.group.stripes(), (client.OK, [
            (0, 2), (2, 2), (4, 4)] + [(first, 8) for first in range(8, 64, 8)]))
        self.assertEqual(world.group.acquire(1, 50), (client.OK, [(1, 1)]))
        self.assertEqual(world.group.acquire(3, 50), (client.OK, [(2, 2), (4, 4)]))
        self.assertEqual(world.group.release([(1, 2)]), client.INVALID)
        self.assertEqual(world.group.release([(1, 1), (1, 1)]), client.INVALID)
        self.assertEqual(world.group.release([(8, 8)]), client.INVALID)
        self.assertEqual(world.group.release([(1, 1)]), client.OK)
        self.assertEqual(world.group.acquire(1, 50), (client.OK, [(1, 1)]))

    def test_a_release_waits_for_its_step(self):
        world = self.world(2)
        world.start()
        world.group.acquire(3, 50)
        world.group.step = 7
        world.group.release([(1, 1)])
        for launched in (0, 6):
            for rank in world.ranks:
                rank.launch(launched)
            world.all_look()
            self.assertTrue(all(rank.due and 1 in rank.cache.live for rank in world.ranks))
        world.ranks[0].launch(7)
        world.all_look()
        self.assertEqual([1 in rank.cache.live for rank in world.ranks], [False, True])
        # Wanted again: the one that has it still keeps it, and then it goes with the same step.
        world.group.acquire(1, 0)
        world.ranks[0].cache.most = 0
        world.all_look()
        world.group.acquire(1, 0)
        world.all_look()
        self.assertEqual([1 in rank.cache.live for rank in world.ranks], [False, True])
        world.ranks[1].launch(7)
        world.all_look()
        self.assertNotIn(1, world.ranks[1].cache.live)

    def test_what_is_told_arrives(self):
        world = self.world(2)
        world.start()
        world.group.expect(30)
        world.group.in_use(4)
        world.group.report("pinned: no reason")
        world.all_look()
        for rank, texts in zip(world.ranks, world.texts):
            self.assertEqual((rank.cache.expected, rank.cache.told_in_use), (30, 4))
            self.assertEqual(texts, ["pinned: no reason"])
        world.ranks[1].cache.pressed = 9
        self.assertEqual(world.group.pressure(), 0)
        for rank in world.ranks:
            rank.launch(1)
        self.assertEqual(world.group.pressure(), 9)

    def test_an_idle_engine_hears_of_pressure_and_of_its_end(self):
        world = self.world(2)
        world.start()
        world.all_look()
        for pressed in (9, 0):
            world.ranks[1].cache.pressed = pressed
            world.all_look()
            self.assertEqual(world.group.pressure(), pressed)

    def test_ranks_that_do_not_fit_together(self):
        nested, other = [2, 4, 6, 8, 16, 24] + list(range(28, 65, 4)), [3, 9, 33, 64]
        self.assertEqual(self.world(2, [World.ENDS, nested]).group.agree(64, 1), "")
        self.assertIn("differently", self.world(2, [World.ENDS, other]).group.agree(64, 1))
        self.assertIn("64 blocks of 65", self.world(2).group.agree(65, 1))
        plain = self.world(3)
        plain.ranks[2].not_elastic()
        self.assertEqual(plain.group.agree(64, 1), "rank 2 is not elastic")

    def test_stripes_of_ranks_with_less_memory_are_joined(self):
        fine = [2, 4, 6, 8] + list(range(12, 65, 4))
        world = self.world(2, [World.ENDS, fine])
        world.start()
        self.assertEqual(world.group.acquire(12, 50), (client.OK, [(1, 1), (2, 2), (4, 4), (8, 8)]))
        self.assertEqual(world.ranks[1].cache.live, {1: 1, 2: 2, 4: 4, 8: 8})

    def test_everything_backed_instead(self):
        world = self.world(2)
        ready = [False, True]
        for rank, done in zip(world.ranks, range(2)):
            rank.back_whole = lambda why, done=done: self.whys.append(why) or ready[done]
        self.whys = []
        world.group.decide(group_file.WHOLE, "because")
        world.all_look()
        self.assertEqual(self.whys, ["because"] * 2)
        self.assertEqual([world.group.back_whole(r, 0) for r in range(2)], [client.SHORT, client.OK])
        ready[0] = True
        self.assertEqual(world.group.back_whole(0, 2000), client.OK)

    def test_a_dead_rank_is_not_waited_for(self):
        world = self.world(2, turns=False)
        world.start()
        world.ranks[0].serve()
        die(world.ranks[1].file, 2)
        begin = time.monotonic()
        self.assertEqual(world.group.acquire(1, 20), (client.SHORT, []))
        self.assertLess(time.monotonic() - begin, 1)
        with self.assertRaisesRegex(group.Lost, "rank 1 died"):
            world.group.acquire(1, 5000)

    def test_an_answer_is_never_missed(self):
        world = self.world(2, turns=False)
        world.start()
        for rank in world.ranks:
            rank.serve()
        for _ in range(3000 if STRESS else 500):
            code, ranges = world.group.acquire(1, 5000)
            self.assertEqual((code, ranges), (client.OK, [(1, 1)]))
            self.assertEqual(world.group.release(ranges), client.OK)

    def test_a_rank_that_fails_says_so(self):
        world = self.world(2, turns=False)
        world.start()
        world.ranks[1].cache.acquire_ranges = lambda ranges, wait_ms: client.LOST
        with self.assertLogs("kvcached", "WARNING"):
            for rank in world.ranks:
                rank.serve()
            with self.assertRaisesRegex(group.Lost, "rank 1 failed"):
                world.group.acquire(1, 5000)

    def test_a_rank_that_only_has_the_file_waits(self):
        world = self.world(2)
        self.assertEqual([rank._look() for rank in world.ranks], [group_rank.LONG] * 2)


class GroupFile(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        os.environ["KVCACHED_DIR"] = self.folder.name + "/pool"
        self.addCleanup(os.environ.pop, "KVCACHED_DIR", None)

    def test_each_rank_joins_once(self):
        file = group_file.create(2)
        joined = group_file.join(file.path, 1)
        for rank in (1, 2):
            with self.assertRaises(group_file.Unusable):
                group_file.join(file.path, rank)
        self.assertEqual([file.alive(0), file.alive(1)], [False, True])
        die(joined, 2)
        self.assertFalse(file.alive(1))

    def test_what_is_not_a_group_file_is_refused(self):
        path = self.folder.name + "/file"
        whole = pathlib.Path(group_file.create(1).path).read_bytes()
        for content in (b"", b"x" * 40, whole[:-8]):
            with open(path, "wb") as file:
                file.write(content)
            with self.assertRaises(group_file.Unusable):
                group_file.join(path, 0)

    def test_left_over_files_go(self):
        old, used, new = (group_file.create(1) for _ in range(3))
        die(old, 0)
        die(new, 0)
        for file in (old, used):
            os.utime(file.path, (1, 1))
        group_file.create(1)
        self.assertEqual([os.path.exists(f.path) for f in (old, used, new)], [False, True, True])

    def test_texts_are_whole(self):
        file = group_file.create(1)
        self.assertEqual(file.text(-1), (0, ""))
        file.write_text(-1, "a" * 300)
        self.assertEqual(file.text(-1), (2, "a" * 128))
        file.write_text(-1, "b\u00e9")
        self.assertEqual(file.text(-1), (4, "b\u00e9"))

    def test_a_full_file_system_is_an_error_at_the_start(self):
        def full(*args):
            raise OSError(28, "no space")
        shared_file = worlds.package.shared_file
        shared_file.os = types.SimpleNamespace(**dict(vars(os), posix_fallocate=full))
        self.addCleanup(setattr, shared_file, "os", os)
        with self.assertRaises(OSError):
            group_file.create(1)
        self.assertEqual(os.listdir(self.folder.name + "/pool"), [])


if __name__ == "__main__":
    unittest.main()
