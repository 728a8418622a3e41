#!/bin/sh
# Makes bench/engine/kernels.ptx from kernels.inl, with nvcc. `make_ptx.sh --check` says whether the
# committed one belongs to the present source; it needs no nvcc.
#
# The oldest GPU that nvcc 13 compiles for is 7.5, whose first PTX version is 6.3; what the kernels
# use is older than that, so the version is set back and any driver since CUDA 10 takes the text.
# It is wrapped in a C++ raw string, so that it can be included and make knows of it.
set -eu
cd "$(dirname "$0")/../.."
ptx=bench/engine/kernels.ptx
sources='bench/engine/kernels.inl bench/engine/kernel_args.h'
digest=$(cat $sources | sha256sum | cut -c1-64)

if [ "${1-}" = --check ]; then
  if ! grep -q "^// sources $digest$" $ptx; then
    echo "$ptx is older than its sources: run $0" >&2
    exit 1
  fi
  exit 0
fi

nvcc=${NVCC:-${CUDA:-/usr/local/cuda}/bin/nvcc}
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
"$nvcc" -x cu -std=c++17 -O3 -I. -ptx -arch=compute_75 -o "$made/kernels" bench/engine/kernels.inl
{
  echo 'R"ptx('
  echo "// sources $digest"
  sed -e '/^\/\//d' -e '/^[[:space:]]*$/d' -e 's/^\.version .*/.version 6.3/' "$made/kernels"
  echo ')ptx"'
} > "$ptx"
