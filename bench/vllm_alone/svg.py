"""The picture: every pair's ratio, and the memory of both engines over one round."""
import html

from . import figures

WIDTH, LEFT, RIGHT, LINE = 960, 300, 40, 20
COLOURS = {"stock": "#777777", "elastic": "#4477aa"}
RATIOS = (0.8, 1.2)   # what lies beyond is drawn at the edge
CHART = 240


class Drawing:
    def __init__(self):
        self.parts = []

    def text(self, x, y, words, anchor="start", size=13):
        self.parts.append('<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%d">%s</text>' % (
            x, y, anchor, size, html.escape(words)))

    def line(self, x1, y1, x2, y2, colour="#cccccc", dashes=""):
        self.parts.append('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"%s/>' % (
            x1, y1, x2, y2, colour, ' stroke-dasharray="%s"' % dashes if dashes else ""))

    def dot(self, x, y, radius, colour):
        self.parts.append('<circle cx="%.1f" cy="%.1f" r="%g" fill="%s"/>' % (x, y, radius, colour))

    def curve(self, points, colour):
        self.parts.append('<polyline fill="none" stroke="%s" stroke-width="1.5" points="%s"/>' % (
            colour, " ".join("%.1f,%.1f" % point for point in points)))

    def finish(self, height):
        return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" '
                'height="%d" font-family="sans-serif" fill="#222222">\n'
                '<rect width="100%%" height="100%%" fill="#ffffff"/>\n%s\n</svg>\n' % (
                    WIDTH, height, WIDTH, height, "\n".join(self.parts)))


def _ratios(drawing, rows, top):
    """One line a metric with a goal: small dots are pairs, the large one is their median."""
    low, high = RATIOS

    def x(ratio):
        part = (min(max(ratio, low), high) - low) / (high - low)
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    bottom = top + LINE * len(rows)
    for tick in (0.8, 0.9, 1.0, 1.1, 1.2):
        drawing.line(x(tick), top, x(tick), bottom, "#222222" if tick == 1.0 else "#dddddd")
        drawing.text(x(tick), bottom + 16, "%.1f" % tick, "middle")
    for i, row in enumerate(rows):
        y = top + LINE * (i + 0.5)
        drawing.text(LEFT - 8, y + 4, "%s, %s: %s" % (row.mode, row.workload, row.metric), "end", 12)
        limit = x(figures.GOALS[row.metric][1])
        drawing.line(limit, y - 8, limit, y + 8, "#cc3311")
        for ratio in row.pairs:
            drawing.dot(x(ratio), y, 2.5, "#99bbdd")
        drawing.dot(x(row.ratio()), y, 5, "#999999" if "noise" in row.verdict() else
                    "#44aa88" if row.verdict() == "met" else "#cc3311")
    return bottom + 40


def _memory(drawing, runs, mode, top):
    """Memory of both engines since the round's begin."""
    traces = {kind: record["memory"]["trace"] for kind, record in runs.items()}
    seconds = max(trace[-1][0] for trace in traces.values()) or 1
    gib = max(used for trace in traces.values() for _, used in trace) / 1024 * 1.05 or 1
    left, bottom = 70, top + CHART

    def at(second, mib):
        return (left + second / seconds * (WIDTH - left - RIGHT),
                bottom - max(mib, 0) / 1024 / gib * CHART)

    drawing.text(left, top - 10, "GPU memory of each engine, GiB: %s, round %d" % (
        mode, next(iter(runs.values()))["round"]), size=14)
    for i in range(5):
        y = at(0, gib * 1024 * i / 4)[1]
        drawing.line(left, y, WIDTH - RIGHT, y)
        drawing.text(left - 6, y + 4, "%.1f" % (gib * i / 4), "end")
        drawing.text(at(seconds * i / 4, 0)[0], bottom + 18, "%.0f s" % (seconds * i / 4), "middle")
    for i, (kind, trace) in enumerate(traces.items()):
        drawing.curve([at(*sample) for sample in trace], COLOURS[kind])
        drawing.text(WIDTH - RIGHT - 70 * (i + 1), top - 10, "— " + kind)
        drawing.parts[-1] = drawing.parts[-1].replace("<text", '<text fill="%s"' % COLOURS[kind])
    return bottom + 60


def draw(records):
    drawing, top = Drawing(), 56
    drawing.text(20, 26, "vLLM alone on one GPU: elastic / stock", size=16)
    drawing.text(WIDTH - RIGHT, 26, "red lines: goals; small dots: pairs; grey: within noise", "end")
    rows = [row for mode in ("offline", "serve") for row in figures.rows(records, mode)
            if row.metric in figures.GOALS and row.pairs]
    if rows:
        top = _ratios(drawing, rows, top)
    else:
        drawing.text(20, top, "No pair is complete.")
        top += 30
    for mode in ("serve", "offline"):
        # The latest round that has most to show.
        best = max(figures.rounds(records, mode).items(), default=(0, {}),
                   key=lambda item: (len(item[1]), item[0]))[1]
        best = {kind: best[kind] for kind in COLOURS
                if kind in best and best[kind]["memory"]["trace"]}
        if best:
            top = _memory(drawing, best, mode, top + 20)
    return drawing.finish(top)
