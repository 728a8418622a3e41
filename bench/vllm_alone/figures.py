"""What the records of runs say: values of one run, and stock beside elastic over the rounds."""
import statistics

from . import workloads
from .client import percentile

LEAST_FOR_P99 = 50   # requests of one run
# Metric: (better is, limit of the ratio elastic / stock). Others have no goal.
GOALS = {"tokens/s": ("at least", 0.99)}
GOALS.update({name + share: ("at most", 1.03) for name in ("TTFT ", "TPOT ")
              for share in ("p50 ms", "p99 ms")})
STARTUP_LIMIT_S = 0.5
# A steady load's tokens per second say how much was asked, not how much the engine can do.
BURSTS = {step.name for steps in workloads.PLANS.values() for step in steps
          if isinstance(step, workloads.Burst)}


def values(record):
    """Figures of one run by (workload, metric)."""
    found = {}
    for name, repeats in record["workloads"].items():
        if name in BURSTS:
            found[name, "tokens/s"] = statistics.median(r["tokens"] / r["seconds"] for r in repeats)
        for metric, key in (("TTFT", "ttft_ms"), ("TPOT", "tpot_ms")):
            pooled = [value for r in repeats for value in r.get(key, ())]
            if pooled:
                found[name, metric + " p50 ms"] = percentile(pooled, 0.5)
            if len(pooled) >= LEAST_FOR_P99:
                found[name, metric + " p99 ms"] = percentile(pooled, 0.99)
        gaps = [r["itl_ms"] for r in repeats if r.get("itl_ms")]
        for share in ("p50", "p99") if gaps else ():
            found[name, "ITL %s ms" % share] = statistics.median(g[share] for g in gaps)
    return found


def rounds(records, mode):
    """{round: {kind: record}} of a mode."""
    found = {}
    for record in records.values():
        if record["mode"] == mode:
            found.setdefault(record["round"], {})[record["kind"]] = record
    return found


def comparable(pair):
    """Both are there, and of the same GPU."""
    return len(pair) == 2 and len({str(r["machine"]["gpu"]) for r in pair.values()}) == 1


class Row:
    """One metric of one workload over all rounds."""

    def __init__(self, mode, workload, metric):
        self.mode, self.workload, self.metric = mode, workload, metric
        self.by_kind = {"stock": [], "elastic": []}
        self.ratios = []

    def ratio(self):
        return statistics.median(self.ratios) if self.ratios else None

    def verdict(self):
        """met, missed, or nothing where there is no goal or no pair."""
        if not self.ratios or self.metric not in GOALS:
            return ""
        better, limit = GOALS[self.metric]
        good = self.ratio() >= limit if better == "at least" else self.ratio() <= limit
        return "met" if good else "missed"

    def distance(self):
        """How far the ratio lies from its goal's limit."""
        return abs(self.ratio() - GOALS[self.metric][1])

    def median(self, kind):
        return statistics.median(self.by_kind[kind]) if self.by_kind[kind] else None


def rows(records, mode):
    """In the order in which the workloads ran."""
    found = {}
    for pair in rounds(records, mode).values():
        measured = {kind: values(record) for kind, record in pair.items()}
        for kind, figures in measured.items():
            for key, value in figures.items():
                found.setdefault(key, Row(mode, *key)).by_kind[kind].append(value)
        if comparable(pair):
            for key in measured["stock"].keys() & measured["elastic"].keys():
                if measured["stock"][key]:
                    found[key].ratios.append(measured["elastic"][key] / measured["stock"][key])
    return list(found.values())


def startups(records, mode):
    """Seconds by kind, and elastic minus stock of each pair."""
    by_kind, more = {"stock": [], "elastic": []}, []
    for pair in rounds(records, mode).values():
        for kind, record in pair.items():
            by_kind[kind].append(record["startup_s"])
        if comparable(pair):
            more.append(pair["elastic"]["startup_s"] - pair["stock"]["startup_s"])
    return by_kind, more


def tokens(records, mode):
    """How many requests were compared; on how many of them all stock runs agree; in how many of
    these an elastic run differs; and how many runs of each kind there are. None without both."""
    outputs = {"stock": [], "elastic": []}
    for record in records.values():
        if record["mode"] == mode:
            outputs[record["kind"]].append({
                (name, repeat, number): digest
                for name, repeats in record["workloads"].items()
                for repeat, figures in enumerate(repeats)
                for number, digest in enumerate(figures["digests"])})
    if not outputs["stock"] or not outputs["elastic"]:
        return None
    first = outputs["stock"][0]
    agreed = [key for key in first if all(o.get(key) == first[key] for o in outputs["stock"])]
    differ = [key for key in agreed if any(o.get(key) != first[key] for o in outputs["elastic"])]
    return {"requests": len(first), "agreed": len(agreed), "differ": len(differ),
            "differ_in": sorted({key[0] for key in differ}),
            "runs": {kind: len(o) for kind, o in outputs.items()}}


def memory(records, mode, kind):
    """Medians over the runs, in MiB above what was used before the engine's start, by moment."""
    seen = {}
    for pair in rounds(records, mode).values():
        figures = pair.get(kind, {}).get("memory", {})
        seen.setdefault("at ready", []).append(figures.get("at_ready_mib"))
        for name, phase in figures.get("phases", {}).items():
            if not name.startswith("idle"):
                seen.setdefault("peak of " + name, []).append(phase["peak_mib"])
                continue
            for second in (1, 2, 5, 10):
                reached = [used for at, used in phase["curve"] if at <= second]
                if reached and phase["curve"][-1][0] >= second - 0.5:
                    seen.setdefault("%s, %d s" % (name, second), []).append(reached[-1])
            seen.setdefault(name + ", end", []).append(phase["end_mib"])
            seen.setdefault(name + ", settled after (s)", []).append(phase["settled_s"])
    known = {name: [v for v in found if v is not None] for name, found in seen.items()}
    return {name: statistics.median(found) for name, found in known.items() if found}


def processors(records, mode, kind):
    """Processors taken during each workload, medians: {workload: {scheduler, core, others}}."""
    seen = {}
    for pair in rounds(records, mode).values():
        for name, repeats in pair.get(kind, {}).get("workloads", {}).items():
            for figures in repeats:
                for part, share in figures["processors"].items():
                    seen.setdefault(name, {}).setdefault(part, []).append(share)
    return {name: {part: statistics.median(found) for part, found in parts.items()}
            for name, parts in seen.items()}
