"""Processes of a session of their own: how much they compute, and their certain end."""
import contextlib
import os
import pathlib
import signal
import time

PROC = pathlib.Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """One line of /proc."""

    def __init__(self, pid):
        # The command's name stands in parentheses and may hold anything.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        self.pid = pid
        self.state = fields[0]
        self.seconds = (int(fields[11]) + int(fields[12])) / TICKS

    def title(self):
        return (PROC / str(self.pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(
            errors="replace").strip()

    def main_thread_seconds(self):
        path = PROC / str(self.pid) / "task" / str(self.pid) / "schedstat"
        return int(path.read_text().split()[0]) / 1e9


def members(session):
    """The session's processes that run."""
    found = []
    for entry in os.scandir(PROC):
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) != session:
                    continue
                process = Process(int(entry.name))
            except (OSError, ValueError, IndexError):
                continue  # it has just ended
            if process.state not in "ZX":
                found.append(process)
    return found


def session_of(pid):
    """None where there is no such process."""
    try:
        return os.getsid(pid)
    except OSError:
        return None


def engine_core(session):
    """vLLM's engine core: its main thread is the scheduler's. None where there is no such process."""
    for process in members(session):
        try:
            if "EngineCore" in process.title():
                return process
        except OSError:
            continue
    return None


def siblings(cpu):
    """The processors of one core with this one, itself included."""
    try:
        text = pathlib.Path(
            "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list" % cpu).read_text()
        spans = [part.split("-") for part in text.strip().split(",")]
        return {cpu}.union(*(range(int(span[0]), int(span[-1]) + 1) for span in spans))
    except (OSError, ValueError):
        return {cpu}


def places(cpus):
    """Processors for the client, for the scheduler's threads, for all else of engine cores, and for
    the engines' other processes: each part has its own, and both engines of a pair have the same.
    None where there are too few.

    The scheduler has a core of its own, with nothing on the other half as far as the system tells:
    threads that share one, or are moved to and fro, are one reason for two engines to differ."""
    cpus = sorted(cpus)
    if len(cpus) < 8:
        return None
    first = 2 + len(cpus) // 4
    core = cpus[2:first]
    return {"client": cpus[:2], "scheduler": core[:1],
            "core": [cpu for cpu in core if cpu not in siblings(core[0])] or core[1:],
            "others": cpus[first:]}


@contextlib.contextmanager
def only_on(cpus):
    """For this thread and the processes that it starts meanwhile; None: wherever it may run."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def place(session, where):
    """Puts all threads of the session where they belong. One that comes later is where the thread
    was that made it: to be called again when an engine has done some work."""
    for process in members(session):
        with contextlib.suppress(OSError):
            part = "core" if "EngineCore" in process.title() else "others"
            for thread in os.listdir(PROC / str(process.pid) / "task"):
                own = part == "core" and int(thread) == process.pid
                with contextlib.suppress(OSError):  # it has just ended
                    os.sched_setaffinity(int(thread), where["scheduler" if own else part])


def processor_seconds(session):
    """Processor time so far: the engine core's scheduler thread, all of the engine core, and each
    of the session's other processes."""
    seconds = {"at": time.monotonic(), "scheduler": 0.0, "core": 0.0, "others": {}}
    for process in members(session):
        try:
            if "EngineCore" in process.title():
                seconds["scheduler"] += process.main_thread_seconds()
                seconds["core"] += process.seconds
            else:
                seconds["others"][process.pid] = process.seconds
        except (OSError, IndexError, ValueError):
            continue
    return seconds


def shares(before, after):
    """Processors taken between two calls of processor_seconds; `busiest`: by one of the others."""
    wall = max(after["at"] - before["at"], 1e-9)
    others = [seconds - before["others"].get(pid, 0.0)
              for pid, seconds in after["others"].items()]
    taken = {name: after[name] - before[name] for name in ("scheduler", "core")}
    taken.update(others=sum(others), busiest=max(others, default=0.0))
    return {name: round(seconds / wall, 4) for name, seconds in taken.items()}


def end(process, grace=20.0):
    """Ends a process that leads its session, and all of the session: it asks, then it kills.
    Answers whether asking was enough."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    until = time.monotonic() + grace
    while time.monotonic() < until:
        process.poll()  # a leader that has ended must not remain as one that runs
        if not members(process.pid):
            break
        time.sleep(0.02)
    obeyed = not members(process.pid)
    until = time.monotonic() + 10  # the driver may hold a killed process for a moment
    while (left := members(process.pid)) and time.monotonic() < until:
        for member in left:  # also those with a group of their own
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
        process.poll()
        time.sleep(0.02)
    process.wait()
    return obeyed
