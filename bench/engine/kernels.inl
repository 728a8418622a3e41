// The engine's kernels, for the GPU (nvcc) and for the simulated one (a host compiler). After a
// change run bench/engine/make_ptx.sh.
//
// Every word of a row follows from request, layer, position, K or V, and its place in the row, so
// that a lost, stale or foreign page cannot pass for the right one.

#include "bench/engine/kernel_args.h"

#ifdef __CUDACC__
#define ENGINE_DEVICE __device__ __forceinline__
#define ENGINE_FIRST_LANE threadIdx.x
#define ENGINE_LANES blockDim.x
#define ENGINE_ANY(wrong) __syncthreads_or(wrong)
#else
// One host iteration does the work of a whole thread block; the loop over lanes is vectorised.
#define ENGINE_DEVICE inline __attribute__((always_inline))
#define ENGINE_FIRST_LANE 0U
#define ENGINE_LANES 1U
#define ENGINE_ANY(wrong) (wrong)
#endif

namespace kvcached::engine {
namespace {

struct RowKey {
  std::uint32_t low;
  std::uint32_t high;
};

ENGINE_DEVICE RowKey row_key(std::uint64_t seed, std::uint32_t layer, std::uint32_t position,
                             std::uint32_t value) {
  std::uint64_t x = seed + position * 0x9E3779B97F4A7C15ULL + (layer * 2U + value) * 0xD6E8FEB9ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  x ^= x >> 31;
  return {static_cast<std::uint32_t>(x), static_cast<std::uint32_t>(x >> 32)};
}

ENGINE_DEVICE std::uint32_t word(RowKey key, std::uint32_t lane) {
  return (key.low + lane * 0x9E3779B9U) ^ key.high;
}

ENGINE_DEVICE std::uint64_t add(std::uint64_t* counter, std::uint64_t n) {
#ifdef __CUDACC__
  return atomicAdd(reinterpret_cast<unsigned long long*>(counter), n);
#else
  return __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
#endif
}

struct Layer {
  std::uint32_t* keys;
  std::uint32_t* values;
  std::uint32_t number;
  std::uint32_t block_tokens;
  std::uint32_t row_words;
};

ENGINE_DEVICE std::uint64_t row_start(const Layer& layer, std::uint32_t block,
                                      std::uint32_t position) {
  const std::uint64_t token =
      static_cast<std::uint64_t>(block) * layer.block_tokens + position % layer.block_tokens;
  return token * layer.row_words;
}

ENGINE_DEVICE void write_span(const Layer& layer, const Span& span, const std::uint32_t* tables) {
  for (std::uint32_t p = span.position; p < span.position + span.count; ++p) {
    const std::uint64_t start = row_start(layer, tables[span.table + p / layer.block_tokens], p);
    for (std::uint32_t value = 0; value < 2; ++value) {
      std::uint32_t* row = (value != 0 ? layer.values : layer.keys) + start;
      const RowKey key = row_key(span.seed, layer.number, p, value);
      for (std::uint32_t i = ENGINE_FIRST_LANE; i < layer.row_words; i += ENGINE_LANES) {
        row[i] = word(key, i);
      }
    }
  }
}

ENGINE_DEVICE void check_span(const Layer& layer, const Span& span, const std::uint32_t* tables,
                              Counters* counters) {
  for (std::uint32_t p = span.position; p < span.position + span.count; ++p) {
    const std::uint32_t block = tables[span.table + p / layer.block_tokens];
    const std::uint64_t start = row_start(layer, block, p);
    for (std::uint32_t value = 0; value < 2; ++value) {
      const std::uint32_t* row = (value != 0 ? layer.values : layer.keys) + start;
      const RowKey key = row_key(span.seed, layer.number, p, value);
      std::uint32_t wrong = 0;
      for (std::uint32_t i = ENGINE_FIRST_LANE; i < layer.row_words; i += ENGINE_LANES) {
        wrong |= row[i] ^ word(key, i);
      }
      if (ENGINE_ANY(wrong != 0) && ENGINE_FIRST_LANE == 0 && add(&counters->rows_wrong, 1) == 0) {
        counters->wrong_seed = span.seed;
        counters->wrong_layer = layer.number;
        counters->wrong_value = value;
        counters->wrong_position = p;
        counters->wrong_block = block;
      }
    }
  }
  if (ENGINE_FIRST_LANE == 0) {
    add(&counters->rows_checked, 2ULL * span.count);
  }
}

}  // namespace
}  // namespace kvcached::engine

#ifdef __CUDACC__
/// Writes K and V of one layer; one thread block for each span.
extern "C" __global__ void kv_write(std::uint32_t* keys, std::uint32_t* values,
                                    const kvcached::engine::Span* spans,
                                    const std::uint32_t* tables, std::uint32_t layer,
                                    std::uint32_t block_tokens, std::uint32_t row_words) {
  kvcached::engine::write_span({keys, values, layer, block_tokens, row_words}, spans[blockIdx.x],
                               tables);
}

/// Reads K and V of one layer and counts the rows that are not what was written.
extern "C" __global__ void kv_check(std::uint32_t* keys, std::uint32_t* values,
                                    const kvcached::engine::Span* spans,
                                    const std::uint32_t* tables, std::uint32_t layer,
                                    std::uint32_t block_tokens, std::uint32_t row_words,
                                    kvcached::engine::Counters* counters) {
  kvcached::engine::check_span({keys, values, layer, block_tokens, row_words}, spans[blockIdx.x],
                               tables, counters);
}
#endif
