"""A stock and an elastic vLLM on one GPU, in turns: speed, latency, memory, tokens, start-up.

    python3 bench/vllm_alone measure --site SITE --results DIR [--deadline SECONDS]
    python3 bench/vllm_alone report DIR
    python3 bench/vllm_alone condense DIR > FILE
    python3 bench/vllm_alone compare FILE...
"""
import argparse
import pathlib
import resource
import signal
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path[0] = str(HERE.parent)

from vllm_alone import condense, engine, gpu, report, runner  # noqa: E402

ROOT = HERE.parent.parent
BAD_INPUT = 2


def refuse(text):
    print("vllm_alone: " + text, file=sys.stderr)
    sys.exit(BAD_INPUT)


class Parser(argparse.ArgumentParser):
    def error(self, message):
        refuse(message)


def positive(kind):
    def convert(text):
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value
    convert.__name__ = "number above zero"
    return convert


def parser():
    whole = Parser(prog="vllm_alone", description=__doc__.split("\n")[0])
    verbs = whole.add_subparsers(dest="verb", required=True,
                                 metavar="measure|report|condense|compare")
    measure = verbs.add_parser("measure", help="go on with the rounds that a folder lacks")
    measure.add_argument("--site", type=pathlib.Path,
                         help="a folder with an unpacked vLLM; without one, --python has it")
    measure.add_argument("--model", type=pathlib.Path,
                         help="a folder with config.json (SITE/_bundle)")
    measure.add_argument("--load-format", default="dummy", help="of the weights (%(default)s)")
    measure.add_argument("--python", default=sys.executable, help="the interpreter for vLLM")
    measure.add_argument("--build", type=pathlib.Path, default=ROOT / "build",
                         help="the folder with libkvcached.so and kvcached (build)")
    measure.add_argument("--results", type=pathlib.Path, default=ROOT / "build" / "vllm-alone",
                         help="one JSON file a round and engine, logs, the report (build/vllm-alone)")
    measure.add_argument("--work", type=pathlib.Path, help="caches of compiled kernels",
                         default=pathlib.Path(tempfile.gettempdir()) / "kvcached-vllm-alone")
    measure.add_argument("--rounds", type=positive(int), default=5, help="(%(default)s)")
    measure.add_argument("--modes", default=",".join(runner.MODES), help="(%(default)s)")
    measure.add_argument("--deadline", type=positive(float), default=float("inf"),
                         metavar="SECONDS", help="start no round that might end later than this")
    measure.add_argument("--run-limit", type=positive(float), default=300.0, metavar="SECONDS",
                         help="the most that the start of engines, or one round, may take "
                              "(%(default)s)")
    measure.add_argument("--kv-gib", type=positive(int), metavar="GIB",
                         help="each engine's KV cache (%d; offline %d)" % (
                             engine.USUAL_CACHE_GIB, engine.CACHE_GIB["offline"]))
    measure.add_argument("--no-pin", dest="pin", action="store_false",
                         help="let client and engines run on all processors")
    measure.add_argument("--gpu", type=int, metavar="N", help="which GPU, by its bus order (0)")
    measure.add_argument("--set", action="append", default=[], metavar="KVCACHED_NAME=VALUE",
                         dest="setting", help="a setting of the elastic engine")
    measure.add_argument("--tiny", action="store_true",
                         help="a fraction of the load, to try the benchmark")
    for verb, told in (("report", "table and picture of a folder"),
                       ("condense", "a line of JSON for each of its records, to be kept")):
        verbs.add_parser(verb, help=told).add_argument("results", type=pathlib.Path)
    verbs.add_parser("compare", help="what condensed records of several starts say together"
                     ).add_argument("files", type=pathlib.Path, nargs="+")
    return whole


def check(options):
    """Makes the options complete, or refuses them."""
    for name in ("site", "build", "results", "work", "model"):
        if getattr(options, name):
            setattr(options, name, getattr(options, name).resolve())
    if options.site and not (options.site / "vllm").is_dir():
        refuse("--site %s: no vllm in it" % options.site)
    if not options.model and not options.site:
        refuse("give --site, or --model")
    options.model = options.model or options.site / "_bundle"
    if not (options.model / "config.json").is_file():
        refuse("--model %s: no config.json in it" % options.model)
    for name in ("libkvcached.so", "kvcached"):
        if not (options.build / name).exists():
            refuse("--build %s: no %s in it" % (options.build, name))
    options.modes = options.modes.split(",")
    for mode in options.modes:
        if mode not in runner.MODES:
            refuse("--modes: %s is none of %s" % (mode, ", ".join(runner.MODES)))
    for setting in options.setting:
        if not setting.startswith("KVCACHED_") or "=" not in setting:
            refuse("--set %s: not KVCACHED_NAME=VALUE" % setting)
    options.setting = dict(setting.split("=", 1) for setting in options.setting)
    for folder in (options.results, options.work):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            refuse("%s: %s" % (folder, error.strerror))


def say(text):
    print("%s %s" % (time.strftime("%H:%M:%S"), text), flush=True)


def stop(number, _):
    """As an exception, so that engines are ended on the way out."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # not while they end
    sys.exit(128 + number)


def measure(options):
    check(options)
    signal.signal(signal.SIGTERM, stop)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # every stream is a connection
    device = gpu.Gpu(options.gpu or 0)
    if device.nvml is None:
        say("no GPU, or no library of its driver: memory is not recorded")
    try:
        status = runner.Runner(options, device, say).run()
    except runner.Conflict as conflict:
        refuse(str(conflict))
    print("\n" + report.write(options.results))
    return status


def compare(files):
    try:
        rows = condense.rows([path.read_text().splitlines() for path in files])
    except (OSError, ValueError, KeyError, TypeError) as error:
        refuse("%s: no condensed records (%s)" % (", ".join(map(str, files)), error))
    if not rows:
        refuse("%s: no pair of a stock and an elastic round" % ", ".join(map(str, files)))
    print(report.together(rows))
    return 0


def main(arguments=None):
    options = parser().parse_args(arguments)
    if options.verb == "measure":
        return measure(options)
    if options.verb == "compare":
        return compare(options.files)
    if not options.results.is_dir():
        refuse("%s: no such folder" % options.results)
    records = runner.read_records(options.results)
    if not records:
        refuse("%s: no record in it" % options.results)
    if options.verb == "condense":
        for record in records.values():
            print(condense.line(record))
    else:
        print(report.write(options.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
