"""The table and the picture of a results folder, whatever of it is there."""
import json
import statistics

from . import engine, figures, svg
from .runner import MANIFEST, read_records

MIB = 1 << 20


def number(value, digits=None):
    if value is None:
        return "–"
    if digits is None:
        digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2
    return "{:,.{}f}".format(value, digits)


def table(heads, lines):
    """In Markdown; the first two columns are words."""
    rule = ["---" if i < 2 else "--:" for i in range(len(heads))]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [heads, rule] + lines)


def comparison(records):
    lines = []
    for mode in ("offline", "serve"):
        for row in figures.rows(records, mode):
            goal = "%s %.2f" % figures.GOALS[row.metric] if row.metric in figures.GOALS else ""
            spread = "%.3f–%.3f" % (min(row.ratios), max(row.ratios)) if row.ratios else "–"
            lines.append([mode + ", " + row.workload, row.metric, number(row.ratio(), 3), spread,
                          (goal + " " + row.verdict()).strip(), number(row.median("stock")),
                          number(row.median("elastic")), len(row.ratios)])
    heads = ["workload", "metric", "elastic / stock", "lowest–highest", "goal", "stock", "elastic",
             "pairs"]
    return table(heads, lines) if lines else "No run is complete."


def summary(records):
    """The goals that ratios decide, in one line."""
    judged = [row for mode in ("offline", "serve") for row in figures.rows(records, mode)
              if row.verdict()]
    missed = [row for row in judged if row.verdict() == "missed"]
    fewest = min((len(row.ratios) for row in judged), default=0)
    return "%d of %d ratios meet their goal, by %d pairs or more.%s" % (
        len(judged) - len(missed), len(judged), fewest, "" if not missed else
        " Farthest from it: " + "; ".join(
            "%s, %s, %s: %.3f" % (row.mode, row.workload, row.metric, row.ratio())
            for row in sorted(missed, key=figures.Row.distance, reverse=True)[:3]) + ".")


def startup(records):
    lines = []
    for mode in ("offline", "serve"):
        by_kind, more = figures.startups(records, mode)
        middle = statistics.median(more) if more else None
        verdict = "" if middle is None else (
            " met" if middle <= figures.STARTUP_LIMIT_S else " missed")
        if any(by_kind.values()):
            lines.append([mode, "at most +%.1f s%s" % (figures.STARTUP_LIMIT_S, verdict),
                          number(middle, 2),
                          "%.2f–%.2f" % (min(more), max(more)) if more else "–"] +
                         [number(statistics.median(v) if v else None, 2)
                          for v in by_kind.values()])
    return table(["mode", "goal", "elastic − stock, s", "lowest–highest", "stock, s",
                  "elastic, s"], lines)


def memory(records):
    lines = []
    for mode in ("serve", "offline"):
        stock, elastic = (figures.memory(records, mode, k) for k in ("stock", "elastic"))
        lines += [[mode, moment, number(stock.get(moment), 1 if "(s)" in moment else 0),
                   number(elastic.get(moment), 1 if "(s)" in moment else 0)]
                  for moment in dict.fromkeys([*stock, *elastic])]
    return table(["mode", "moment", "stock, MiB", "elastic, MiB"], lines) if lines else (
        "Not recorded: no GPU, or no library of its driver to ask.")


def tokens(records):
    lines = []
    for mode in ("offline", "invariant"):
        found = figures.tokens(records, mode)
        if found:
            where = " (%s)" % ", ".join(found["differ_in"]) if found["differ"] else ""
            lines.append(
                "- %s: %s. Of %d requests, all %d stock runs agree on %d; elastic (%d runs) "
                "differs in %d of these%s." % (
                    mode, "missed" if found["differ"] else "met" if found["agreed"] else "open",
                    found["requests"], found["runs"]["stock"], found["agreed"],
                    found["runs"]["elastic"], found["differ"], where))
    return "\n".join(lines) or "Not compared: that takes both kinds of a mode."


def scheduler(records):
    lines = []
    for mode in ("offline", "serve"):
        stock, elastic = (figures.processors(records, mode, k) for k in ("stock", "elastic"))
        for name in dict.fromkeys([*stock, *elastic]):
            lines.append([mode, name] + [number(shares.get(name, {}).get(part), 3)
                                         for part in ("scheduler", "core", "others")
                                         for shares in (stock, elastic)])
    text = table(["mode", "workload", "scheduler thread, stock", "elastic", "engine core, stock",
                  "elastic", "other processes, stock", "elastic"], lines)
    for name, record in records.items():
        spied = record.get("spy")
        if spied and spied.get("samples"):
            text += "\n\n%s, py-spy: %s of %d samples of the scheduler thread are in the library's " \
                "functions; most in %s." % (
                    name, "{:.1%}".format(spied["ours"]), spied["samples"],
                    ", ".join("%s (%d)" % tuple(p) for p in spied["places"][:3]) or "none")
        elif spied:
            text += "\n\n%s, py-spy: %s." % (name, spied.get("missing", "no samples"))
    return text


def counters(records):
    """Medians over the elastic runs at each moment when `kvcached stat` was asked."""
    lines = []
    for mode in ("offline", "serve"):
        seen = {}
        for pair in figures.rounds(records, mode).values():
            for moment, _, shown in pair.get("elastic", {}).get("stats", ()):
                if shown:
                    seen.setdefault(moment, []).append(engine.totals(shown))
        for moment, found in seen.items():
            def middle(name, unit=1):
                return number(statistics.median(f[name] for f in found) / unit, 0)
            lines.append([mode, moment] + [middle(n + "_bytes", MIB)
                                           for n in ("charged", "used", "warm")] +
                         [middle(n) for n in ("grows", "releases", "short_grants")])
    return table(["mode", "moment", "charged, MiB", "used, MiB", "warm, MiB", "grows", "releases",
                  "short grants"], lines) if lines else "No elastic run."


def conditions(results, records):
    lines = []
    for machine in {json.dumps(r["machine"], sort_keys=True): r["machine"]
                    for r in records.values()}.values():
        lines.append("- %s (%s), driver %s, %s processors" % (
            machine["gpu"] or "no GPU", machine["gpu_id"], machine["driver"],
            machine["processors"]))
    dates = sorted(r["date"] for r in records.values())
    if dates:
        lines.append("- %d runs, %s to %s; library %s" % (
            len(dates), dates[0], dates[-1], ", ".join(sorted({r["library"]
                                                              for r in records.values()}))))
    try:
        manifest = json.loads((results / MANIFEST).read_text())
    except (OSError, ValueError):
        manifest = {}
    if manifest.get("tiny"):
        lines.append("- **With a fraction of the load, to try the benchmark: no figure counts.**")
    if manifest.get("settings"):
        lines.append("- Settings: " + ", ".join("%s=%s" % s for s in manifest["settings"].items()))
    for mode in ("offline", "serve"):
        pairs = [p for p in figures.rounds(records, mode).values() if len(p) == 2]
        torn = sum(p["stock"]["call"] != p["elastic"]["call"] for p in pairs)
        unlike = sum(not figures.comparable(p) for p in pairs)
        if torn or unlike:
            lines.append("- %s: %d of %d pairs were measured in two calls, %d on unlike GPUs "
                         "(not compared)" % (mode, torn, len(pairs), unlike))
    lines += ["- Steady loads of the runs refer to %s requests/s" % number(c) for c in
              sorted({r["capacity"] for r in records.values() if r["mode"] == "serve"})]
    busy = [(f["client_busy"], f["late_ms_p99"]) for r in records.values() if r["mode"] == "serve"
            for repeats in r["workloads"].values() for f in repeats]
    if busy:
        most, late = max(b for b, _ in busy), max(late for _, late in busy)
        lines.append("- The client took at most %.2f of a processor and sent 99 of 100 requests at "
                     "most %.1f ms late%s" % (most, late, "; **it was a bottleneck**"
                                              if most > 0.7 else ""))
    killed = sorted(name for name, r in records.items() if not r["ended_when_asked"])
    if killed:
        lines.append("- Had to be killed: " + ", ".join(killed))
    for path in sorted(results.glob("*.failed.json")):
        try:
            lines.append("- Failed: {name}: {error}".format(**json.loads(path.read_text())))
        except (OSError, ValueError, KeyError):
            continue
    return "\n".join(lines)


def write(results):
    """Writes report.md and report.svg; answers the text."""
    records = read_records(results)
    text = "\n\n".join([
        "# vLLM alone on one GPU: elastic beside stock",
        summary(records),
        "Ratios are medians of the rounds' ratios, the other figures medians of the rounds.",
        comparison(records), "## Start-up", startup(records),
        "## Memory above what was used before the start", memory(records),
        "## The same tokens", tokens(records),
        "## Processors taken", scheduler(records),
        "## What `kvcached stat` showed", counters(records),
        "## Conditions", conditions(results, records)]) + "\n"
    (results / "report.md").write_text(text)
    (results / "report.svg").write_text(svg.draw(records))
    return text
