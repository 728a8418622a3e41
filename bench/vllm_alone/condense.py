"""Records as they are kept for good, a line each with the percentiles of every piece; and what those
of several starts say together."""
import json

from . import figures
from .client import percentile

KEPT = ("mode", "round", "kind", "library", "date", "capacity")


def piece(measured):
    found = {name: measured[name] for name in ("requests", "tokens")}
    found["seconds"] = round(measured["seconds"], 6)
    for name in figures.METRICS.values():
        if measured.get(name):
            found[name] = {label.split()[0]: percentile(measured[name], share)
                           for label, share in figures.SHARES.items()}
    if measured.get("itl_ms"):
        found["itl_ms"] = {name: round(value, 3) for name, value in measured["itl_ms"].items()}
    return found


def line(record):
    found = {name: record[name] for name in KEPT if name in record}
    found["workloads"] = {name: [piece(measured) for measured in pieces]
                          for name, pieces in record["workloads"].items()}
    found["memory"] = record["memory"]["phases"]
    if "probe" in record:
        found["probe"] = record["probe"]
    if record["mode"] == "start":
        found["startup_s"] = record["startup_s"]
    return json.dumps(found)


def values(name, kept):
    """{metric: value} of a piece of the workload of that name."""
    found = {"tokens/s": kept["tokens"] / kept["seconds"]} if name in figures.BURSTS else {}
    for metric, key in figures.METRICS.items():
        for label in figures.labels(kept["requests"]) if key in kept else ():
            found["%s %s" % (metric, label)] = kept[key][label.split()[0]]
    return found


def rows(files):
    """Each file has the records of one start. Only pieces of one start are a pair."""
    found = {}
    for lines in files:
        records = dict(enumerate(map(json.loads, lines)))
        for mode in dict.fromkeys(record["mode"] for record in records.values()):
            for pair in figures.rounds(records, mode).values():
                if len(pair) == 2:
                    stock, elastic = (pair[kind]["workloads"] for kind in ("stock", "elastic"))
                    add_pairs(found, mode, stock, elastic)
    return list(found.values())


def add_pairs(found, mode, stock, elastic):
    for name in stock:
        for kept in zip(stock[name], elastic.get(name, ())):
            for metric, ratio in figures.ratios(*(values(name, each) for each in kept)):
                row = found.setdefault((mode, name, metric), figures.Row(mode, name, metric))
                row.pairs.append(ratio)
