"""The group file: where the scheduler of an engine with several GPUs and its ranks meet.

One small file, mapped by all processes of the engine. It is made of 64-bit words, little-endian and
aligned, so that each is written at once; every word has one writer, and nothing is ever locked but
to say that a process lives, so no death leaves it in between. A reader that sees a word sees all
that its writer wrote before.

  page 0          the scheduler's: what it decided and tells all ranks
  page 1 + rank   the rank's: what became of its memory
  tables          a word a stripe: ENDS, WANT, AFTER of the scheduler, ENDS and ANSWER of each rank

WANT is `sequence * 2 + wanted`; a rank answers with `WANT * 2 + held`. AFTER is the step that must
be launched before the rank may let the stripe go.
"""

import ctypes
import mmap
import os
import struct

from _kvcached import bell, shared_file

MAGIC = 0x70756F72672D766B  # "kv-group"
VERSION = 1
CAPACITY = 4096  # stripes
PAGE = 512  # words

# Words of page 0, and of a rank's page.
_MAGIC, _VERSION, _RANKS, _CAPACITY = range(4)
BELL, VERDICT, STRIPES, EXPECT, IN_USE = range(8, 13)
STATE, BLOCKS, BYTES, LEAST, LAUNCHED, PRESSURE = range(16, 22)
_TEXT_SEQUENCE, _TEXT = 31, 32
_TEXT_BYTES = 128

# VERDICT: what is to become of the ranks' memory.
UNDECIDED, ELASTIC, WHOLE = range(3)
# STATE of a rank: no adapter spoke yet; plain memory; elastic with a cache; backed for good; to be
# backed for good; its library failed.
SILENT, PLAIN, READY, BACKED, UNBACKED, BROKEN = range(6)

class Unusable(Exception):
    """No group file, or not this engine's."""


def create(ranks):
    """A new file, for its scheduler. Raises OSError."""
    descriptor, path = shared_file.create("group-", _size(ranks, CAPACITY))
    try:
        file = File(descriptor, path, ranks, CAPACITY)
    except BaseException:
        os.close(descriptor)
        shared_file.unlink(path)
        raise
    words = file.words
    words[_VERSION], words[_RANKS], words[_CAPACITY] = VERSION, ranks, CAPACITY
    words[_MAGIC] = MAGIC
    return file


def join(path, rank):
    """The file at `path` for one of its ranks. Raises OSError or Unusable."""
    descriptor, size = shared_file.open_own(path)
    try:
        head = struct.unpack("<4Q", os.pread(descriptor, 32, 0).ljust(32, b"\0"))
        if head[:2] != (MAGIC, VERSION):
            raise Unusable("not a group file of this version")
        _, _, ranks, capacity = head
        if not rank < ranks <= 4096 or not 0 < capacity <= 1 << 20 or (
                size != _size(ranks, capacity)):
            raise Unusable("a group file of %d ranks" % ranks)
        if not shared_file.lock(descriptor, 1 + rank):
            raise Unusable("rank %d is there already" % rank)
        return File(descriptor, path, ranks, capacity)
    except BaseException:
        os.close(descriptor)
        raise


class File:
    """The mapped file. `words` are all of it; `head(rank)` and the tables are parts of it."""

    def __init__(self, descriptor, path, ranks, capacity):
        self.descriptor = descriptor
        self.path = path
        self.ranks = ranks
        self.capacity = capacity
        self._map = mmap.mmap(descriptor, _size(ranks, capacity))
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.words = memoryview(self._map).cast("Q")
        self.ends, self.want, self.after = (self._table(i) for i in range(3))
        self.rank_ends = [self._table(3 + 2 * rank) for rank in range(ranks)]
        self.answer = [self._table(4 + 2 * rank) for rank in range(ranks)]
        self._heads = [self.words[PAGE * i:PAGE * (i + 1)] for i in range(1 + ranks)]
        self.scheduler = self._heads[0]

    def _table(self, index):
        first = PAGE * (1 + self.ranks) + index * self.capacity
        return self.words[first:first + self.capacity]

    def head(self, rank):
        return self._heads[1 + rank]

    def unlink(self):
        """Nobody else can join any more."""
        shared_file.unlink(self.path)

    def alive(self, rank):
        return shared_file.held(self.descriptor, 1 + rank)

    def ring(self, owner):
        """After something was written. `owner`: a rank, or -1 for the scheduler."""
        head = self._heads[1 + owner]
        head[BELL] = head[BELL] + 1 & 0xFFFFFFFF
        bell.wake(self._bell(owner))

    def wait(self, owner, seen, seconds):
        """Until the owner's bell is not `seen` any more, at most so long."""
        bell.wait(self._bell(owner), seen, seconds)

    def _bell(self, owner):
        return self._address + 8 * (PAGE * (1 + owner) + BELL)

    # ---- Texts -------------------------------------------------------------------------------

    def write_text(self, owner, text):
        head = self._heads[1 + owner]
        words = memoryview(text.encode()[:_TEXT_BYTES].ljust(_TEXT_BYTES, b"\0")).cast("Q")
        head[_TEXT_SEQUENCE] += 1  # odd while it is written
        for index, word in enumerate(words):
            head[_TEXT + index] = word
        head[_TEXT_SEQUENCE] += 1

    def text(self, owner):
        """Its number, which grows with each one, and the text; number 0: none, or just changing."""
        head = self._heads[1 + owner]
        number = head[_TEXT_SEQUENCE]
        text = bytes(head[_TEXT:_TEXT + _TEXT_BYTES // 8]).rstrip(b"\0").decode(errors="replace")
        return (number, text) if number == head[_TEXT_SEQUENCE] and not number & 1 else (0, "")


def _size(ranks, capacity):
    return 8 * (PAGE * (1 + ranks) + (3 + 2 * ranks) * capacity)
