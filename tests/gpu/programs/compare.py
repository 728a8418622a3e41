"""Whether two runs of a program did the same: exit code, output and output files."""

import difflib
import re
from dataclasses import dataclass, field

from program import Program

SHOWN = 120  # lines of a difference


@dataclass
class Run:
    code: int | None  # None: stopped at its limit
    seconds: float
    out: bytes
    err: bytes
    files: dict[str, bytes] = field(default_factory=dict)
    elastic: int = 0
    log: str = ""


def _masked(program: Program, output: bytes) -> list[str]:
    lines = output.decode(errors="backslashreplace").splitlines()
    for where, what, becomes in program.masks:
        lines = [re.sub(what, becomes, line) if re.search(where, line) else line for line in lines]
    return sorted(lines) if program.unordered else lines


def _without_figures(lines: list[str]) -> list[str]:
    return [re.sub(r"[-+]?\d[\d.]*(e[-+]?\d+)?|nan|inf", "#", line) for line in lines]


def differences(program: Program, a: Run, b: Run, figures: bool = True) -> list[str]:
    """What differs, in lines to read; nothing: the same. figures: numbers count, too."""
    found = []
    if a.code != b.code:
        found.append(f"exit code {a.code} and {b.code}")
    one, other = _masked(program, a.out), _masked(program, b.out)
    if not figures:
        one, other = _without_figures(one), _without_figures(other)
    if one != other:
        found += list(difflib.unified_diff(one, other, "stock", "with kvcached", lineterm="", n=0))[:SHOWN]
    for name in sorted(a.files.keys() | b.files.keys()):
        if a.files.get(name) != b.files.get(name) and figures:
            found.append(f"file {name}: {len(a.files.get(name, b''))} and {len(b.files.get(name, b''))} bytes differ")
    return found


def verdict(program: Program, stock: list[Run], ours: list[Run]) -> tuple[str, list[str]]:
    """One word of `same`, `differs`, `empty`, `unsteady` or `failed`, and why."""
    if stock[0].code is None:
        return "failed", ["stopped at its limit without kvcached"]
    if stock[0].code < 0:
        return "failed", [f"killed by signal {-stock[0].code} without kvcached",
                          stock[0].err.decode(errors="replace")[-400:]]
    if program.code not in (None, stock[0].code) and all(run.code == stock[0].code for run in ours):
        return "failed", [f"exits with {stock[0].code} without kvcached, and with it",
                          *stock[0].out.decode(errors="replace").splitlines()[-4:],
                          *stock[0].err.decode(errors="replace").splitlines()[-8:]]
    steady = all(not differences(program, stock[0], other) for other in stock[1:])
    for run in ours:
        found = differences(program, stock[0], run, figures=steady)
        if found:
            if run.code != stock[0].code:
                found += run.err.decode(errors="replace").splitlines()[-12:]
            return "differs", found
    if not steady:
        return "unsteady", ["the program does not agree with itself; text and exit code are the same"]
    if min(run.elastic for run in ours) < program.elastic:
        return "empty", [f"{ours[0].elastic} elastic allocations, {program.elastic} or more were to be"]
    return "same", []
