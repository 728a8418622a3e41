#!/bin/bash
# Everything that needs a real GPU, into one log: usage: tests/gpu/check.sh [BUILD [OUT]]
#
# Runs what a build holds and builds nothing: BUILD may come from another machine. It needs the
# driver and python3. OUT (BUILD/gpu-check) gets check.log, the benchmarks' figures and the demo's
# picture. STEPS="facts api" runs only those. The last line is one verdict; the exit code is 1 when
# a step failed.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "${1:-$root/build}" && pwd) || exit 2
out=${2:-$build/gpu-check}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
exec > >(tee "$out/check.log") 2>&1
cd "$root" || exit 2

failed=()
passed=0

# step NAME LIMIT COMMAND…: runs it for at most LIMIT seconds.
step() {
  local name=$1 limit=$2 status
  shift 2
  if [ -n "${STEPS:-}" ] && [[ " $STEPS " != *" $name "* ]]; then return; fi
  printf '\n==== %s: %s\n' "$name" "$*"
  local begin=$SECONDS
  if declare -F "$1" >/dev/null; then "$@"; else timeout --kill-after=10 "$limit" "$@" </dev/null; fi
  status=$?
  if [ $status -eq 0 ]; then
    passed=$((passed + 1))
    printf -- '---- %s: passed, %d s\n' "$name" $((SECONDS - begin))
  else
    failed+=("$name")
    printf -- '---- %s: failed with status %d, %d s\n' "$name" $status $((SECONDS - begin))
  fi
}

memory_used() {
  nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits
}

# What a step leaves behind on the GPU, or its processes, is a failure of its own.
nothing_left() {
  local now
  for _ in 1 2 3 4 5; do
    now=$(memory_used | head -1)
    [ $((now - before)) -le 64 ] && return 0
    sleep 1
  done
  echo "memory in use grew from $before to $now MiB"
  return 1
}

echo "date:   $(date -u +%Y-%m-%dT%H:%M:%SZ)"
echo "source: $(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)"
if ! nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader; then
  echo "gpu-check: no GPU, or no driver for it"
  exit 2
fi
before=$(memory_used | head -1)
export KVCACHED_DIR
KVCACHED_DIR=$(mktemp -d)
trap 'rm -rf "$KVCACHED_DIR"' EXIT

run=("$root/tests/run" --build "$build" --real-gpu --timeout 300)
step facts 320 "${run[@]}" driver_facts
step api 320 "${run[@]}" api
step chaos 200 "$build/tests/chaos" --real --seconds "${CHAOS:-40}"
step demo 400 "$build/demo-driver" "$build" --gpu real
[ -d "$build/demo" ] && cp -r "$build/demo" "$out/" 2>/dev/null
for bench in "$build"/bench/*; do
  [ -f "$bench" ] && [ -x "$bench" ] || continue
  name=$(basename "$bench")
  step "bench-$name" 300 env LD_PRELOAD="$build/libkvcached.so" "$bench" \
    --json "$out/$name.jsonl"
done
if [ -n "${VLLM_ARCHIVE:-}" ]; then
  step vllm 1500 python3 tests/engines/gpu_vllm.py --archive "$VLLM_ARCHIVE" --out "$out"
fi
step clean 60 nothing_left

printf '\ngpu-check: %d steps passed, %d failed%s\n' "$passed" "${#failed[@]}" \
  "${failed[*]:+: ${failed[*]}}"
[ ${#failed[@]} -eq 0 ] && [ "$passed" -gt 0 ]
