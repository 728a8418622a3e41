"""What the harness prints and writes: a table, results.json and results.md."""

import json
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from compare import Run
from program import Program

WORDS = ("same", "unsteady", "differs", "empty", "failed", "not run")


@dataclass
class Row:
    program: Program
    word: str
    why: list[str]
    stock: list[Run] = field(default_factory=list)
    ours: list[Run] = field(default_factory=list)

    def code(self) -> str:
        if not self.stock:
            return "-"
        codes = ["limit" if run.code is None else str(run.code) for run in (self.stock[0], *self.ours[:1])]
        return codes[0] if len(set(codes)) == 1 else " / ".join(codes)

    def elastic(self) -> str:
        if not self.ours:
            return "-"
        return str(min(run.elastic for run in self.ours))

    def seconds(self, runs: list[Run]) -> str:
        return f"{min(run.seconds for run in runs):.1f}" if runs else "-"

    def note(self) -> str:
        """What standard error has that stock's had not, by kind of line; nothing is judged by it."""
        if not self.stock or not self.ours:
            return ""
        known = {len(run.err.splitlines()) for run in self.stock}
        lines = len(self.ours[0].err.splitlines())
        return "" if lines <= max(known) else f"{lines - max(known)} more lines on standard error"


HEAD = ["program", "group", "result", "exit", "elastic", "stock s", "with s"]


def _cells(row: Row) -> list[str]:
    return [row.program.name, row.program.group, row.word, row.code(), row.elastic(), row.seconds(row.stock),
            row.seconds(row.ours)]


def table(rows: list[Row]) -> str:
    cells = [HEAD] + [_cells(row) for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
                     for line in cells)


def reasons(rows: list[Row]) -> str:
    text = []
    for row in rows:
        notes = [*row.why, *([row.note()] if row.note() else [])]
        warnings = sorted({line.split("]: ", 1)[-1] for run in row.ours for line in run.log.splitlines()
                           if " is elastic" not in line and "joined the pool" not in line})
        notes += [f"log: {line}" for line in warnings[:4]]
        if notes:
            text.append("\n".join([f"\n{row.program.name}: {row.word}", *("  " + line[:300] for line in notes)]))
    return "\n".join(text)


def summary(rows: list[Row]) -> str:
    counts = ", ".join(f"{n} {word}" for word in WORDS if (n := sum(row.word == word for row in rows)))
    elastic = sum(min(run.elastic for run in row.ours) for row in rows if row.ours)
    return f"{len(rows)} programs: {counts}; {elastic} elastic allocations"


def _asked(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def machine(tree: Path) -> dict[str, str]:
    return {"date": time.strftime("%Y-%m-%d", time.gmtime()),
            "gpu": _asked("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"),
            "source": _asked("git", "-C", str(tree), "rev-parse", "--short", "HEAD")}


def listing(programs: list[Program]) -> str:
    return "\n".join(f"{p.group:16}  {p.name:32} {p.match:16} {p.elastic or '-'!s:>3}  {p.why}" for p in programs)


def write(out: Path, rows: list[Row], where: dict[str, str]) -> None:
    whole = {"machine": where, "summary": summary(rows), "programs": [
        {"name": row.program.name, "group": row.program.group, "result": row.word, "why": row.why,
         "match": row.program.match, "elastic": [run.elastic for run in row.ours],
         "exit": {"stock": [run.code for run in row.stock], "with": [run.code for run in row.ours]},
         "seconds": {"stock": [round(run.seconds, 2) for run in row.stock],
                     "with": [round(run.seconds, 2) for run in row.ours]},
         "log": row.ours[0].log[-2000:] if row.ours else "",
         "output": row.stock[0].out[-1500:].decode(errors="replace") if row.stock else "",
         "output with": row.ours[0].out[-1500:].decode(errors="replace")
         if row.ours and row.word not in ("same",) else "",
         "errors": row.stock[0].err[-600:].decode(errors="replace") if row.stock else "",
         "errors with": row.ours[0].err[-1500:].decode(errors="replace") if row.ours else ""}
        for row in rows]}
    (out / "results.json").write_text(json.dumps(whole, indent=1) + "\n")
    lines = [f"{where['gpu'] or 'no GPU'}, {where['date']}, source {where['source'] or 'unknown'}.", "",
             summary(rows) + ".", "",
             "| " + " | ".join(HEAD) + " |", "|---|---|---|---|--:|--:|--:|"]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    text = reasons(rows)
    if text:
        lines += ["", "```", text.strip(), "```"]
    (out / "results.md").write_text("\n".join(lines) + "\n")
