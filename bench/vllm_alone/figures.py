"""What the records say: values of one round, and stock beside elastic, piece by piece."""
import math
import statistics

from . import workloads
from .client import percentile

LEAST_FOR_P99 = 50   # requests of one piece, or one round
CONFIDENCE = 0.90
# Metric: (better is, limit of the ratio elastic / stock). Others have no goal.
GOALS = {"tokens/s": ("at least", 0.99)}
GOALS.update({name + share: ("at most", 1.03) for name in ("TTFT ", "TPOT ")
              for share in ("p50 ms", "p99 ms")})
STARTUP_LIMIT_S = 0.5
IDLE_LIMIT_MIB = 600.0   # above weights, activations and context, so long after a load:
IDLE_S = 10.0
PREFIX_CACHE = "5%"      # the default of KVCACHED_PREFIX_CACHE
SHARES = {"p50 ms": 0.5, "p99 ms": 0.99}
METRICS = {"TTFT": "ttft_ms", "TPOT": "tpot_ms"}  # of each request, as records name them
# A steady load's tokens per second say how much was asked, not how much the engine can do.
BURSTS = {step.name for steps in workloads.PLANS.values() for step in workloads.asked(steps)
          if isinstance(step, workloads.Burst)}


def samples(record):
    """{(workload, "TTFT" or "TPOT"): a value for each request}"""
    found = {(name, metric): [value for r in repeats for value in r.get(key, ())]
             for name, repeats in record["workloads"].items()
             for metric, key in METRICS.items()}
    return {key: values for key, values in found.items() if values}


def percentiles(samples):
    """{(workload, metric): value}, the p99 where there are requests enough."""
    return {(name, "%s %s" % (metric, label)): percentile(values, SHARES[label])
            for (name, metric), values in samples.items() for label in labels(len(values))}


def labels(requests):
    """Of SHARES, those that so many requests tell."""
    return [label for label, share in SHARES.items() if share == 0.5 or requests >= LEAST_FOR_P99]


def values(record):
    """Figures of one round by (workload, metric)."""
    found = {}
    for name, repeats in record["workloads"].items():
        if name in BURSTS:
            found[name, "tokens/s"] = statistics.median(r["tokens"] / r["seconds"] for r in repeats)
        gaps = [r["itl_ms"] for r in repeats if r.get("itl_ms")]
        for share in ("p50", "p99") if gaps else ():
            found[name, "ITL %s ms" % share] = statistics.median(g[share] for g in gaps)
    found.update(percentiles(samples(record)))
    order = list(record["workloads"])
    return dict(sorted(found.items(), key=lambda item: order.index(item[0][0])))


def pooled(records):
    """The same of several rounds of one engine taken as one."""
    together, work = {}, {}
    for record in records:
        for key, found in samples(record).items():
            together.setdefault(key, []).extend(found)
        for name, repeats in record["workloads"].items():
            if name in BURSTS:
                tokens, seconds = work.get(name, (0, 0))
                work[name] = (tokens + sum(r["tokens"] for r in repeats),
                              seconds + sum(r["seconds"] for r in repeats))
    found = percentiles(together)
    found.update({(name, "tokens/s"): tokens / seconds for name, (tokens, seconds) in work.items()})
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


def interval(values):
    """Where the median lies with CONFIDENCE or more, if whether a value is above it is like tossing
    a coin; of less than five values, from the lowest to the highest."""
    values, count = sorted(values), len(values)
    outside, place = 0.0, 0
    while (outside := outside + math.comb(count, place) / 2 ** count) <= (1 - CONFIDENCE) / 2:
        place += 1
    return values[max(place, 1) - 1], values[-max(place, 1)]


class Row:
    """One metric of one workload over all rounds."""

    def __init__(self, mode, workload, metric):
        self.mode, self.workload, self.metric = mode, workload, metric
        self.by_kind = {"stock": [], "elastic": []}
        self.pairs = []     # elastic / stock of pieces next to each other
        self.pooled = None  # of all rounds taken as one

    def ratio(self):
        return statistics.median(self.pairs) if self.pairs else None

    def mean(self):
        """The pairs' geometric mean, and the standard error of its logarithm, which is about its
        own as a share. Of many noisy pairs it tells more than their median. None where there is no
        such mean: a ratio is 0."""
        logs = [math.log(ratio) for ratio in self.pairs] if all(self.pairs) else []
        error = statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else None
        return (math.exp(statistics.fmean(logs)), error) if logs else (None, None)

    def verdict(self):
        """met or missed, and whether the noise is too much to tell; nothing where there is no goal
        or no pair."""
        if not self.pairs or self.metric not in GOALS:
            return ""
        better, limit = GOALS[self.metric]
        good = self.ratio() >= limit if better == "at least" else self.ratio() <= limit
        low, high = interval(self.pairs)
        return ("met" if good else "missed") + (" within noise" if low <= limit <= high else "")

    def distance(self):
        """How far the ratio lies from its goal's limit."""
        return abs(self.ratio() - GOALS[self.metric][1])

    def median(self, kind):
        return statistics.median(self.by_kind[kind]) if self.by_kind[kind] else None


def pieces(record):
    """{(workload, number of the piece): its values}"""
    return {(name, number): values({"workloads": {name: [figures]}})
            for name, found in record["workloads"].items() for number, figures in enumerate(found)}


def ratios(stock, elastic):
    """(key, elastic / stock) of what both have."""
    return [(key, elastic[key] / stock[key]) for key in stock if stock[key] and key in elastic]


def rows(records, mode):
    """In the order in which the workloads ran."""
    found, compared = {}, {"stock": [], "elastic": []}
    for pair in rounds(records, mode).values():
        measured = {kind: values(record) for kind, record in pair.items()}
        for kind, figures in measured.items():
            for key, value in figures.items():
                found.setdefault(key, Row(mode, *key)).by_kind[kind].append(value)
        if comparable(pair):
            for kind, record in pair.items():
                compared[kind].append(record)
            stock, elastic = pieces(pair["stock"]), pieces(pair["elastic"])
            for piece in stock.keys() & elastic.keys():
                for key, ratio in ratios(stock[piece], elastic[piece]):
                    found[key].pairs.append(ratio)
    stock, elastic = (pooled(compared[kind]) for kind in ("stock", "elastic"))
    for key in stock:
        if elastic.get(key) and stock[key]:
            found.setdefault(key, Row(mode, *key)).pooled = elastic[key] / stock[key]
    order = list(dict.fromkeys(name for name, _ in found))
    return sorted(found.values(), key=lambda row: order.index(row.workload))


def startups(records):
    """Seconds by kind, and elastic minus stock of each pair, of starts alone."""
    by_kind, more = {"stock": [], "elastic": []}, []
    for pair in rounds(records, "start").values():
        for kind, record in pair.items():
            by_kind[kind].append(record["startup_s"])
        if comparable(pair):
            more.append(pair["elastic"]["startup_s"] - pair["stock"]["startup_s"])
    return by_kind, more


def tokens(records, mode):
    """How many requests were compared; on how many of them all stock rounds agree; in how many of
    these an elastic round differs; and how many rounds of each kind there are. None without both.
    Where each round has prompts of its own, only rounds of one number are compared."""
    outputs = {"stock": [], "elastic": []}
    for record in records.values():
        if record["mode"] == mode:
            outputs[record["kind"]].append({
                (name, None if mode == "invariant" else record["round"], repeat, number): digest
                for name, repeats in record["workloads"].items()
                for repeat, figures in enumerate(repeats)
                for number, digest in enumerate(figures["digests"])})
    stock = {}
    for output in outputs["stock"]:
        for key, digest in output.items():
            stock.setdefault(key, set()).add(digest)
    compared = {key for output in outputs["elastic"] for key in output} & stock.keys()
    if not compared:
        return None
    agreed = {key for key in compared if len(stock[key]) == 1}
    differ = {key for key in agreed for output in outputs["elastic"]
              if key in output and output[key] not in stock[key]}
    return {"requests": len(compared), "agreed": len(agreed), "differ": len(differ),
            "differ_in": sorted({key[0] for key in differ}),
            "runs": {kind: len(o) for kind, o in outputs.items()}}


def idle_memory(records, mode, settings):
    """What elastic engines keep IDLE_S after a load above weights, activations and context, which
    is what stock has then without its KV cache: (MiB of each pair, the limit in MiB). The limit is
    None where no pair tells."""
    kept, limit = [], None
    for pair in rounds(records, mode).values():
        if not comparable(pair) or not all(pair[kind].get("cache_mib") for kind in pair):
            continue
        used = {kind: after_load(record) for kind, record in pair.items()}
        if None not in used.values():
            kept.append(used["elastic"] - (used["stock"] - pair["stock"]["cache_mib"]))
            cap = cap_mib(settings.get("KVCACHED_PREFIX_CACHE", PREFIX_CACHE),
                          pair["elastic"]["cache_mib"])
            limit = IDLE_LIMIT_MIB + cap
    return kept, limit


def after_load(record):
    """MiB at IDLE_S into the rest, if it is that long."""
    curves = [phase["curve"] for phase in record["memory"]["phases"].values() if "curve" in phase]
    reached = [used for at, used in curves[0] if at <= IDLE_S] if curves else []
    return reached[-1] if reached and curves[0][-1][0] >= IDLE_S else None


def cap_mib(text, cache_mib):
    """A size or a share of the cache, as KVCACHED_PREFIX_CACHE has it."""
    text = text.strip()
    if text.endswith("%"):
        return float(text[:-1]) / 100 * cache_mib
    units = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
    number = text.rstrip("BbGgIiKkMmTt")
    return min(float(number) * units[text[len(number):].strip().upper()] / (1 << 20), cache_mib)


def memory(records, mode, kind):
    """Medians over the rounds, in MiB, by moment."""
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
