"""What a probed server's file says (probed_server.py): each step's time in our code on the
scheduler's thread."""
import json

from .client import percentile


def read(path, begun):
    """Of the steps since that time. What the probe itself takes is in the figures, and told."""
    steps, by, empty_ns, whole = [], {}, 0.0, 0.0
    for line in path.read_text().splitlines() if path.exists() else ():
        seen = json.loads(line)
        if not seen["steps"] or seen["steps"][-1][0] < begun:
            continue
        empty_ns = seen["empty_ns"]
        whole += seen["steps"][-1][0] - seen["steps"][0][0]  # what is told by function is of all of it
        steps += [step for step in seen["steps"] if step[0] >= begun]
        for name, (calls, ns, longest) in seen["by"].items():
            sums = by.setdefault(name, [0, 0, 0])
            by[name] = [sums[0] + calls, sums[1] + ns, max(sums[2], longest)]
    if len(steps) < 2:
        return {"steps": len(steps)}
    inside = steps[1:]  # between the end of the first and the end of the last
    ours, wall = sum(step[1] for step in inside), steps[-1][0] - steps[0][0]
    entries = sum(step[5] for step in inside)
    return {
        "entries_per_step": entries / len(inside), "empty_us": empty_ns / 1e3,
        "share_of_time_probe": entries * empty_ns / 1e9 / wall,
        "share_of_time_stock_queue": sum(step[6] for step in inside) / 1e9 / wall,
        "stock_queue_us": spread([step[6] / 1e3 for step in inside]),
        "beyond_us": spread([(step[1] - step[6]) / 1e3 for step in inside]),
        "steps": len(inside), "steps_per_s": len(inside) / wall,
        "us": spread([step[1] / 1e3 for step in inside]),
        "library_us": spread([step[2] / 1e3 for step in inside]),
        "library_calls_per_step": sum(step[3] for step in inside) / len(inside),
        "share_of_time": ours / 1e9 / wall,
        "share_of_processor_time": ours / max(steps[-1][4] - steps[0][4], 1),
        "by": {name: {"calls": calls, "us_mean": ns / calls / 1e3, "us_max": longest / 1e3,
                      "share_of_time": ns / 1e9 / whole}
               for name, (calls, ns, longest) in
               sorted(by.items(), key=lambda item: -item[1][1])}}


def spread(values):
    return {"mean": sum(values) / len(values), "p50": percentile(values, 0.5),
            "p90": percentile(values, 0.9), "p99": percentile(values, 0.99), "max": max(values)}
