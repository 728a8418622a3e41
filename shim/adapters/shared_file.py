"""Small files in the pool's folder, in which the processes of one engine meet, and whose makers may
be killed: a byte that is locked says that its process lives."""

import errno
import fcntl
import os
import struct
import time

_OFD_GETLK, _OFD_SETLK = 36, 37
_WRITE, _UNLOCKED = 1, 2
_STALE = 60  # seconds after which a file that nobody holds is left over


def folder():
    """The pool's folder, as the library chooses it."""
    chosen = os.environ.get("KVCACHED_DIR")
    if chosen:
        return chosen
    shared = os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK | os.X_OK)
    return "%s/kvcached-%d" % ("/dev/shm" if shared else "/tmp", os.geteuid())


def create(prefix, size):
    """A new file of so many bytes, held by this process: descriptor and path. Removes what makers
    of such files that died have left. Raises OSError."""
    where = folder()
    os.makedirs(where, 0o700, exist_ok=True)
    _sweep(where, prefix)
    path = "%s/%s%d-%s" % (where, prefix, os.getpid(), os.urandom(6).hex())
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        lock(descriptor, 0)
        # Reserved, or a full file system would end us at a later write.
        os.posix_fallocate(descriptor, 0, size)
    except BaseException:
        os.close(descriptor)
        os.unlink(path)
        raise
    return descriptor, path


def open_own(path):
    """The descriptor of such a file, and its size. Raises OSError, also where it is another user's."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        os.close(descriptor)
        raise PermissionError(errno.EPERM, "another user's", path)
    return descriptor, status.st_size


def unlink(path):
    """Nothing stays behind, however its processes end."""
    try:
        os.unlink(path)
    except OSError:
        pass


def _flock(byte):
    return struct.pack("hhqqi4x", _WRITE, 0, byte, 1, 0)


def lock(descriptor, byte):
    """Until this process ends. False when another one has it."""
    try:
        fcntl.fcntl(descriptor, _OFD_SETLK, _flock(byte))
        return True
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise


def held(descriptor, byte):
    """By another process."""
    found = fcntl.fcntl(descriptor, _OFD_GETLK, _flock(byte))
    return struct.unpack("hhqqi4x", found)[0] != _UNLOCKED


def _sweep(where, prefix):
    for name in os.listdir(where):
        if not name.startswith(prefix):
            continue
        path = where + "/" + name
        try:
            if time.time() - os.stat(path).st_mtime < _STALE:
                continue
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if not held(descriptor, 0):
                    os.unlink(path)
            finally:
                os.close(descriptor)
        except OSError:
            pass
