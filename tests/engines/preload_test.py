"""How the library reaches a Python process by preload alone, and how little it shows.

$KVCACHED_BUILD is the build to test. Every interpreter found on the machine takes part.
"""
import glob
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

BUILD = os.environ.get("KVCACHED_BUILD", "build")
LIBRARY = pathlib.Path(BUILD).resolve() / "libkvcached.so"

# Prints whether the adapters' finder is there, in this process and in children of each kind.
PROBE = """
import json, multiprocessing, sys
def look(queue=None):
    import _ctypes  # an extension module, loaded by dlsym
    for _ in range(3):
        pass  # a pending call runs between two instructions
    seen = "_kvcached" in sys.modules and sys.modules["_kvcached"].finder in sys.meta_path
    if queue is not None:
        queue.put(seen)
    return seen
if __name__ == "__main__":
    found = {"main": look(), "client": any(m.startswith("_kvcached.") for m in sys.modules)}
    for method in sys.argv[1:]:
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        child = context.Process(target=look, args=(queue,))
        child.start()
        found[method] = queue.get()
        child.join()
    print(json.dumps(found))
"""

# An engine in files, with one seam that the adapter knows and one module that it does not.
PACKAGE = {
    "vllm/__init__.py": "",
    "vllm/v1/__init__.py": "",
    "vllm/v1/core/__init__.py": "",
    "vllm/v1/core/other.py": "value = 1\n",
    "vllm/v1/core/sched/__init__.py": "",
    "vllm/v1/core/sched/scheduler.py":
        "class Scheduler:\n"
        "    def schedule(self):\n"
        "        return 7\n",
    "vllm/v1/core/kv_cache_manager.py": "class KVCacheManager:\n    pass\n",
}
USE_PACKAGE = """
import json, sys
import _ctypes
import vllm.v1.core.other
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.core.kv_cache_manager import KVCacheManager
adapter = sys.modules["_kvcached"].vllm
print(json.dumps({
    "wrapped": hasattr(Scheduler.schedule, "__wrapped__"),
    "unknown": adapter.SEAMS.unknown(["vllm.v1.core.kv_cache_manager"]),
    "known": adapter.SEAMS.unknown(["vllm.v1.core.sched.scheduler"]),
    "not seen": adapter.SEAMS.unknown(["vllm.v1.core.block_pool"]),
    "loader": type(sys.modules["vllm.v1.core.other"].__loader__).__name__}))
"""
# The engine is there before the first extension module is loaded.
USE_LATE = """
import sys
import vllm.v1.core.sched.scheduler as seam
before = hasattr(seam.Scheduler.schedule, "__wrapped__")
import _ctypes
for _ in range(3):
    pass
import vllm.v1.core.other
print(before, hasattr(seam.Scheduler.schedule, "__wrapped__"))
"""


def interpreters():
    """One path for each version, linked statically and with a shared libpython."""
    home = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    found = {}
    for path in [sys.executable, "/usr/bin/python3", *sorted(glob.glob("/usr/bin/python3.*[0-9]")),
                 *sorted(glob.glob(home + "/versions/3.*/bin/python3"))]:
        if not os.access(path, os.X_OK):
            continue
        asked = subprocess.run(
            [path, "-c", "import sys, sysconfig; print(sys.version_info[:2] >= (3, 9), "
             "sys.version_info[:2], sysconfig.get_config_var('Py_ENABLE_SHARED'))"],
            capture_output=True, text=True)
        if asked.stdout.startswith("True "):
            found.setdefault(asked.stdout, path)
    return list(found.values())


def run(interpreter, *arguments, **env):
    clean = {k: v for k, v in os.environ.items()
             if not k.startswith(("KVCACHED_", "PYTHON")) and k != "LD_LIBRARY_PATH"}
    return subprocess.run([interpreter, "-B", *arguments], capture_output=True, text=True,
                          timeout=120, env=dict(clean, LD_PRELOAD=str(LIBRARY), **env))


class Preload(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.probe = self.write("probe.py", PROBE)

    def write(self, name, text):
        path = pathlib.Path(self.folder.name) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def ask(self, interpreter, *arguments, **env):
        done = run(interpreter, *arguments, **env)
        self.assertEqual((done.returncode, done.stderr), (0, ""), interpreter)
        return done.stdout

    def test_every_interpreter_and_every_kind_of_child(self):
        for interpreter in interpreters():
            with self.subTest(interpreter=interpreter):
                found = json.loads(self.ask(interpreter, self.probe, "fork", "spawn",
                                            "forkserver"))
                self.assertEqual(found, {"main": True, "client": False, "fork": True,
                                         "spawn": True, "forkserver": True})

    def test_switched_off(self):
        for env in (dict(KVCACHED_ADAPTERS="0"), dict(KVCACHED_DISABLE="1")):
            with self.subTest(env=env):
                self.assertFalse(json.loads(self.ask(sys.executable, self.probe, **env))["main"])

    def test_a_program_without_an_engine_notices_nothing(self):
        self.assertEqual(self.ask(sys.executable, "-c", "pass"), "")
        self.assertEqual(self.ask(sys.executable, "-c", "import _ctypes, json, socket, ssl"), "")
        done = run(sys.executable, "-c", "import _ctypes, sys; sys.exit(3)")
        self.assertEqual(done.returncode, 3)

    def test_modules_of_an_engine_are_hooked_as_they_come(self):
        for name, text in PACKAGE.items():
            self.write(name, text)
        for interpreter in interpreters():
            with self.subTest(interpreter=interpreter):
                found = json.loads(self.ask(interpreter, self.write("use.py", USE_PACKAGE)))
                self.assertEqual(found, {
                    "wrapped": True, "known": "",
                    "unknown": "kv_cache_manager: no KVCacheManager.allocate_slots",
                    "not seen": "block_pool: not seen", "loader": "SourceFileLoader"})

    def test_modules_that_were_there_before(self):
        for name, text in PACKAGE.items():
            self.write(name, text)
        # Without site, whose packages may load extension modules first.
        self.assertEqual(self.ask(sys.executable, "-S", self.write("late.py", USE_LATE)),
                         "False True\n")


if __name__ == "__main__":
    unittest.main()
