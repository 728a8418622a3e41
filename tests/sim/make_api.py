#!/usr/bin/env python3
"""Writes api.inc: every driver function the CUDA headers declare, with the version that introduced it.

    tests/sim/make_api.py /usr/local/cuda/include > tests/sim/api.inc

cudaTypedefs.h names a function by base name and version, cuda.h by symbol (suffix _v2, _v3, ...).
Both list the same generations of a function, so the n-th version belongs to the n-th symbol.
"""
import collections
import os
import re
import subprocess
import sys


def declared_symbols(include):
    """Symbols that cuda.h declares, old generations included."""
    source = "#define __CUDA_API_VERSION_INTERNAL\n#include <cuda.h>\n#include <cudaProfiler.h>\n"
    text = subprocess.run(
        ["gcc", "-E", "-P", "-I", include, "-xc", "-"],
        input=source, stdout=subprocess.PIPE, universal_newlines=True, check=True,
    ).stdout
    return sorted(set(re.findall(r"\b(cu[A-Z]\w*)\s*\(", text)))


def main():
    include = sys.argv[1]
    versions = collections.defaultdict(set)
    for header in ("cudaTypedefs.h", "cudaProfilerTypedefs.h"):
        with open(os.path.join(include, header), encoding="utf-8") as lines:
            for name, version, thread in re.findall(
                r"PFN_(cu\w+?)_v(\d+)(_ptds|_ptsz)?\)", lines.read()
            ):
                versions[name, thread].add(int(version))
    symbols = collections.defaultdict(list)
    for symbol in declared_symbols(include):
        name, generation, thread = re.match(
            r"(cu\w+?)(?:_v(\d+))?(_ptds|_ptsz)?$", symbol
        ).groups()
        symbols[name, thread or ""].append((int(generation or 1), symbol))
    print("// Written by make_api.py from cuda.h. SIM_API(name, version, per thread, symbol)")
    for key in sorted(symbols):
        generations = sorted(symbols[key])
        known = sorted(versions[key])
        if len(generations) != len(known):
            sys.exit("versions and symbols of %s%s do not match" % key)
        for version, (_, symbol) in zip(known, generations):
            print("SIM_API(%s, %d, %d, %s)" % (key[0], version, bool(key[1]), symbol))


if __name__ == "__main__":
    main()
