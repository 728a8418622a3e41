"""For the tests of bench/vllm_alone: a build folder and a vLLM that stand in, and its command."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import types

HERE = pathlib.Path(__file__).resolve().parent
BENCH = HERE.parent.parent / "bench"
SITE = HERE / "doubles" / "vllm_site"
sys.path.append(str(BENCH))

# Stands in for the command: what it shows is elastic once the double of vLLM was there, preloaded.
KVCACHED = """#!/bin/sh
[ -e "$KVCACHED_DIR/elastic" ] || exit 0
echo '{"pools":[{"processes":[{"adapter":"vllm","adapter_state":"elastic: 16 segments",\
"charged_bytes":1048576,"used_bytes":0,"warm_bytes":0,"want_bytes":0,"reserved_bytes":0,\
"short_grants":0,"grows":3,"releases":1}]}]}'
"""


class Bench:
    """A folder of its own, and the benchmark run in it as a child."""

    def __init__(self, test, starts_engines=True):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="alone-"))
        test.addCleanup(shutil.rmtree, self.folder)
        self.results, self.starts = self.folder / "results", self.folder / "starts"
        self.build = self.folder / "build"
        self.build.mkdir()
        self.library = self.build / "libkvcached.so"
        if starts_engines:
            build = pathlib.Path(os.environ.get("KVCACHED_BUILD", "build")).resolve()
            self.library.symlink_to(build / "libkvcached.so")
        else:
            self.library.write_text("one")
        (self.build / "kvcached").write_text(KVCACHED)
        (self.build / "kvcached").chmod(0o755)

    def command(self, *arguments):
        return [sys.executable, "-B", str(BENCH / "vllm_alone"), *map(str, arguments)]

    def measure(self, *arguments, stub=""):
        env = dict(os.environ, STUB=stub, STUB_STARTS=str(self.starts), STUB_NEXT="0.0002",
                   STUB_FIRST="0.002", PYTHONDONTWRITEBYTECODE="1")
        return subprocess.run(self.command(
            "measure", "--site", SITE, "--build", self.build, "--results", self.results,
            "--work", self.folder / "work", "--tiny", *arguments), env=env, text=True,
            capture_output=True, timeout=60)

    def started(self):
        return self.starts.read_text().split("\n")[:-1] if self.starts.exists() else []

    def record(self, name):
        return json.loads((self.results / (name + ".json")).read_text())

    def options(self, **more):
        """As the command makes them, for the runner in this process."""
        for folder in ("results", "work"):
            (self.folder / folder).mkdir(exist_ok=True)
        return types.SimpleNamespace(**dict(
            dict(site=SITE, model=SITE / "_bundle", load_format="dummy", python=sys.executable,
                 build=self.build, results=self.results, work=self.folder / "work", rounds=2,
                 modes=["offline"], deadline=float("inf"), run_limit=60.0, kv_gib=None, pin=False,
                 gpu=None, setting={}, tiny=True), **more))
