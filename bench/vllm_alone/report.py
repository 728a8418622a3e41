"""The table and the picture of a results folder, whatever of it is there."""
import json
import statistics

from . import engine, figures, svg
from .runner import MANIFEST, read_records, read_starts

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


HEADS = ["workload", "metric", "elastic / stock", "90 % interval", "goal", "pairs", "mean ± error"]


def judgement(row):
    """A row under HEADS."""
    goal = "%s %.2f" % figures.GOALS[row.metric] if row.metric in figures.GOALS else ""
    spread = "%.3f–%.3f" % figures.interval(row.pairs) if row.pairs else "–"
    return ["%s, %s" % (row.mode, row.workload), row.metric, number(row.ratio(), 3), spread,
            (goal + " " + row.verdict()).strip(), len(row.pairs),
            "%s ± %s" % tuple(number(part, 3) for part in row.mean())]


def comparison(records):
    lines = [judgement(row) + [number(row.pooled, 3), number(row.median("stock")),
                               number(row.median("elastic"))]
             for mode in ("offline", "serve") for row in figures.rows(records, mode)]
    return table(HEADS + ["all as one", "stock", "elastic"], lines) if lines else (
        "No round is complete.")


def together(rows):
    """Of several starts: the table, and the goals that it decides."""
    return summary([row for row in rows if row.verdict()]) + "\n\n" + table(
        HEADS, list(map(judgement, rows)))


def judged(records):
    return [row for mode in ("offline", "serve") for row in figures.rows(records, mode)
            if row.verdict()]


def summary(judged):
    """The goals that ratios decide, in one line."""
    verdicts = [row.verdict() for row in judged]
    missed = [row for row in judged if row.verdict().startswith("missed")]
    fewest = min((len(row.pairs) for row in judged), default=0)
    return "%d of %d ratios meet their goal (%d of them within noise), %d miss it (%d within " \
           "noise), by %d pairs or more.%s" % (
        len(judged) - len(missed), len(judged), verdicts.count("met within noise"),
        len(missed), verdicts.count("missed within noise"), fewest, "" if not missed else
        " Farthest from it: " + "; ".join(
            "%s, %s, %s: %.3f" % (row.mode, row.workload, row.metric, row.ratio())
            for row in sorted(missed, key=figures.Row.distance, reverse=True)[:3]) + ".")


def startup(records):
    by_kind, more = figures.startups(records)
    if not any(by_kind.values()):
        return "Not measured: mode start."
    middle = statistics.median(more) if more else None
    verdict = "" if middle is None else " met" if middle <= figures.STARTUP_LIMIT_S else " missed"
    return table(["elastic − stock, s", "goal", "lowest–highest", "stock, s", "elastic, s", "pairs"],
                 [[number(middle, 2), "at most +%.1f s%s" % (figures.STARTUP_LIMIT_S, verdict),
                   "%.2f–%.2f" % (min(more), max(more)) if more else "–"] +
                  [number(statistics.median(v) if v else None, 2) for v in by_kind.values()] +
                  [len(more)]])


def idle(records, settings):
    """The goal for idle memory, a line a mode."""
    lines = []
    for mode in ("serve", "offline"):
        kept, limit = figures.idle_memory(records, mode, settings)
        if kept:
            middle = statistics.median(kept)
            lines.append(
                "- %s: %s. %.0f s after a load, elastic has %s MiB (%s–%s) above weights, "
                "activations and context; at most %s MiB, of which %s for cached prefixes." % (
                    mode, "met" if middle <= limit else "missed", figures.IDLE_S, number(middle, 0),
                    number(min(kept), 0), number(max(kept), 0), number(limit, 0),
                    number(limit - figures.IDLE_LIMIT_MIB, 0)))
    return "\n".join(lines) or "Idle memory is not judged: it takes a pair and NVML."


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
                "- %s: %s. Of %d requests, all stock rounds (%d) agree on %d; elastic (%d rounds) "
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
                                         for part in ("scheduler", "core", "others", "busiest")
                                         for shares in (stock, elastic)])
    return table(["mode", "workload", "scheduler thread, stock", "elastic", "engine core, stock",
                  "elastic", "other processes, stock", "elastic", "busiest of them, stock",
                  "elastic"], lines)


def probed(records):
    lines = []
    for name, record in records.items():
        found = record.get("probe")
        if not found:
            continue
        if not found.get("us"):
            lines.append("%s: no steps were seen; is the adapter's code another?" % name)
            continue
        lines.append(
            "%s: %d steps, %.0f a second. Our code took %.2f %% of the scheduler thread's time and "
            "%.2f %% of its processor time; %.2f calls of the library a step." % (
                name, found["steps"], found["steps_per_s"], found["share_of_time"] * 100,
                found["share_of_processor_time"] * 100, found["library_calls_per_step"]))
        columns = ("mean", "p50", "p90", "p99", "max")
        lines.append(table(["a step, us", ""] + list(columns), [
            [what, ""] + [number(found[key][column], 1) for column in columns]
            for what, key in (("our code", "us"), ("of it in the library", "library_us"),
                              ("stock's queue, called as ours", "stock_queue_us"),
                              ("our code beyond that", "beyond_us")) if key in found]))
        lines.append(
            "In these figures are %.0f entries a step into our code with %.2f us each that the probe "
            "itself takes, %.2f %% of the time. Stock's own queue of free blocks, called alike on the "
            "same thread, takes %.2f %%." % (
                found["entries_per_step"], found["empty_us"], found["share_of_time_probe"] * 100,
                found["share_of_time_stock_queue"] * 100))
        lines.append(table(["function", "", "calls", "mean, us", "longest, us", "of the time, %"], [
            [function, "", f["calls"], number(f["us_mean"], 2), number(f["us_max"], 1),
             number(f["share_of_time"] * 100, 3)] for function, f in found["by"].items()]))
    return "\n\n".join(lines) or "Not measured: mode profile."


def counters(records):
    """Medians over the elastic rounds at each moment when `kvcached stat` was asked; what is
    counted, since the round's begin."""
    lines = []
    for mode in ("offline", "serve"):
        seen = {}
        for pair in figures.rounds(records, mode).values():
            stats = pair.get("elastic", {}).get("stats", ())
            begin = engine.totals(stats[0][2]) if stats else {}
            for moment, _, shown in stats:
                if shown:
                    now = engine.totals(shown)
                    now.update({name: now[name] - begin[name]
                                for name in ("grows", "releases", "short_grants")})
                    seen.setdefault(moment, []).append(now)
        for moment, found in seen.items():
            def middle(name, unit=1):
                return number(statistics.median(f[name] for f in found) / unit, 0)
            lines.append([mode, moment] + [middle(n + "_bytes", MIB)
                                           for n in ("charged", "used", "warm")] +
                         [middle(n) for n in ("grows", "releases", "short_grants")])
    return table(["mode", "moment", "charged, MiB", "used, MiB", "warm, MiB", "grows", "releases",
                  "short grants"], lines) if lines else "No elastic round."


def conditions(results, records, manifest):
    lines = []
    for machine in {json.dumps(r["machine"], sort_keys=True): r["machine"]
                    for r in records.values()}.values():
        lines.append("- %s (%s), driver %s, %s processors" % (
            machine["gpu"] or "no GPU", machine["gpu_id"], machine["driver"],
            machine["processors"]) + ("" if not machine.get("places") else ": " + ", ".join(
                "%d for %s" % (len(cpus), part) for part, cpus in machine["places"].items())))
    dates = sorted(r["date"] for r in records.values())
    if dates:
        lines.append("- %d records in %d calls, %s to %s; library %s" % (
            len(dates), len({r["call"] for r in records.values()}), dates[0], dates[-1],
            ", ".join(sorted({r["library"] for r in records.values()}))))
    if manifest.get("tiny"):
        lines.append("- **With a fraction of the load, to try the benchmark: no figure counts.**")
    if manifest.get("settings"):
        lines.append("- Settings: " + ", ".join("%s=%s" % s for s in manifest["settings"].items()))
    for mode in ("offline", "serve"):
        pairs = [p for p in figures.rounds(records, mode).values() if len(p) == 2]
        unlike = sum(not figures.comparable(p) for p in pairs)
        if unlike:
            lines.append("- %s: %d of %d pairs are of unlike GPUs (not compared)" % (
                mode, unlike, len(pairs)))
        caches = {kind: sorted({r["cache_tokens"] for p in pairs
                                if (r := p[kind]).get("cache_tokens")})
                  for kind in ("stock", "elastic")}
        if any(caches.values()):
            lines.append("- %s: KV cache by vLLM's log, tokens: " % mode + ", ".join(
                "%s %s" % (kind, " or ".join(number(count, 0) for count in counts) or "–")
                for kind, counts in caches.items()))
    lines += ["- Steady loads refer to %s requests/s" % number(c) for c in
              sorted({r["capacity"] for r in records.values() if r["mode"] == "serve"})]
    busy = [(f["client_busy"], f["late_ms_p99"]) for r in records.values() if r["mode"] == "serve"
            for repeats in r["workloads"].values() for f in repeats]
    if busy:
        most, late = max(b for b, _ in busy), max(late for _, late in busy)
        lines.append("- The client took at most %.2f of a processor and sent 99 of 100 requests at "
                     "most %.1f ms late%s" % (most, late, "; **it was a bottleneck**"
                                              if most > 0.7 else ""))
    starts = read_starts(results)
    lines += ["- %s, %s: ready after %s" % (
        start["mode"], start["call"].split(" ")[0], ", ".join(
            "%.1f s (%s)" % (seconds, kind) for kind, seconds in start["startup_s"].items()))
        for start in starts if start["mode"] != "start" and start["startup_s"]]
    killed = ["%s-%s" % (start["mode"], kind) for start in starts for kind in start["killed"]]
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
    try:
        manifest = json.loads((results / MANIFEST).read_text())
    except (OSError, ValueError):
        manifest = {}
    text = "\n\n".join([
        "# vLLM alone on one GPU: elastic beside stock",
        summary(judged(records)),
        "Ratios are medians over pairs: pieces that stock and elastic did one after the other. The "
        "interval holds their median with 90 %; where it includes the goal's limit, the verdict is "
        "within noise. Beside it stand the pairs' geometric mean with its standard error, and the "
        "ratio of all rounds as one; stock's and elastic's figures are medians of the rounds.",
        comparison(records), "## Start-up", startup(records),
        "## Memory of each engine", idle(records, manifest.get("settings", {})), memory(records),
        "## The same tokens", tokens(records),
        "## Processors taken", scheduler(records),
        "## Our code on the scheduler's thread", probed(records),
        "## What `kvcached stat` showed", counters(records),
        "## Conditions", conditions(results, records, manifest)]) + "\n"
    (results / "report.md").write_text(text)
    (results / "report.svg").write_text(svg.draw(records))
    return text
