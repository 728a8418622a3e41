"""Makes the programs that need nvcc, several at once; what was made from the same text is kept."""

import glob
import hashlib
import os
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from program import Program

ARCH = "-arch=sm_90"
LIMIT = 240


def nvcc() -> str | None:
    for place in (shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc",
                  f"{sysconfig.get_paths()['purelib']}/nvidia/cu13/bin/nvcc"):
        if place and os.access(place, os.X_OK):
            return place
    return None


def library_folders() -> list[str]:
    """Where libcudart, cuBLAS and the like lie: the toolkit's and the Python packages'."""
    found = glob.glob("/usr/local/cuda/lib64") + glob.glob("/usr/local/cuda/targets/*/lib")
    site = sysconfig.get_paths()["purelib"]
    found += glob.glob(f"{site}/nvidia/*/lib")
    return [place for place in found if glob.glob(f"{place}/lib*.so*")]


def driver_library() -> list[str]:
    """What `-lcuda` stands for: the toolkit's stub, else the driver's own library."""
    for place in library_folders():
        if os.path.exists(f"{place}/stubs/libcuda.so"):
            return [f"-L{place}/stubs", "-lcuda"]
    for pattern in ("/usr/local/nvidia/lib*/libcuda.so.1", "/usr/lib/x86_64-linux-gnu/libcuda.so.1"):
        for found in glob.glob(pattern):
            return [found, "-Xlinker", "--allow-shlib-undefined"]
    return ["-lcuda"]


def _edited(program: Program, source: Path, to: Path) -> Path:
    """The folder to compile in: the sources' own, or a copy with the edits made."""
    if not program.build.edits:
        return source
    copy = to / "src"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)
    for name, (old, new) in program.build.edits.items():
        text = (copy / name).read_text()
        if old not in text:
            raise ValueError(f"{name} has no {old!r}")
        (copy / name).write_text(text.replace(old, new))
    return copy


def _stamp(program: Program, folder: Path) -> str:
    digest = hashlib.sha256(repr(program.build).encode() + ARCH.encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _make(program: Program, tree: Path, to: Path, compiler: str | None) -> str:
    """The reason why there is no program, or nothing."""
    plan, source = program.build, tree / program.folder
    if not source.is_dir():
        return "its sources are not there (fetch-samples)"
    stamp = _stamp(program, source)
    if (to / "stamp").exists() and (to / "stamp").read_text() == stamp:
        return ""
    if compiler is None:
        return "no nvcc"
    to.mkdir(parents=True, exist_ok=True)
    (to / "stamp").unlink(missing_ok=True)
    try:
        folder = _edited(program, source, to)
        common = [compiler, ARCH, "-O2", "-std=c++17", "-w", f"-I{tree}/build/cuda-samples/Common",
                  f"-I{tree}/tests/gpu/programs/cuda"]
        libraries = [f"-L{place}" for place in library_folders()]
        flags = [word for flag in plan.flags for word in (driver_library() if flag == "-lcuda" else [flag])]
        runs = [[*common, *plan.sources, "-o", str(to / program.name), *libraries, *flags]]
        if plan.kernel:
            kind = "-ptx" if plan.kernel_to.endswith(".ptx") else "-fatbin"
            runs.append([*common, kind, plan.kernel, "-o", str(to / plan.kernel_to)])
        for run in runs:
            done = subprocess.run(run, cwd=folder, capture_output=True, text=True, timeout=LIMIT)
            if done.returncode != 0:
                return f"nvcc: {(done.stderr or done.stdout).strip()[-600:]}"
        for name in plan.copy:
            shutil.copy(folder / name, to / name)
    except (ValueError, OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        shutil.rmtree(to / "src", ignore_errors=True)
    (to / "stamp").write_text(stamp)
    return ""


def make_all(programs: list[Program], tree: Path, into: Path, jobs: int) -> dict[str, str]:
    """Why a program could not be made, by name; those that could are not in it."""
    compiler = nvcc()
    with ThreadPoolExecutor(jobs) as pool:
        made = pool.map(lambda p: _make(p, tree, into / p.name, compiler), programs)
        return {p.name: reason for p, reason in zip(programs, made, strict=True) if reason}
