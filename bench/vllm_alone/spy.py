"""What the scheduler's thread does, seen by py-spy: how much of it is ours. Sampling slows the
engine, so nothing that is compared is measured meanwhile."""
import collections
import shutil
import subprocess

OURS = "<kvcached>"       # the file name that our adapters' functions bear
SCHEDULER = "run_busy_loop"


def find():
    return shutil.which("py-spy")


def start(tool, pid, seconds, output):
    return subprocess.Popen(
        [tool, "record", "--pid", str(pid), "--duration", str(seconds), "--rate", "200",
         "--format", "raw", "--full-filenames", "--nonblocking", "--output", str(output)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def read(text):
    """Of folded stacks ("frame;frame;… count"): the scheduler thread's samples, the share that has
    a function of ours on its stack, and where in ours most of them are."""
    samples = ours = 0
    places = collections.Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        if SCHEDULER not in stack or not count.isdigit():
            continue
        samples += int(count)
        inside = [frame for frame in stack.split(";") if OURS in frame]
        if inside:
            ours += int(count)
            places[inside[-1].strip()] += int(count)
    return {"samples": samples, "ours": ours / samples if samples else None,
            "places": places.most_common(8)}
