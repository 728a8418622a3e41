// A cache as an engine makes one: tensors of equal size, tagged, with the same blocks in each.
#pragma once

#include <cstdint>
#include <vector>

#include "bench/measure/cuda.hpp"

namespace kvcached::bench {

// `stripe_bytes`: the largest extent in each tensor; 0: chosen by the library. It and its memory
// last as long as the process.
inline kvcached_cache* make_cache(std::size_t tensors, std::size_t tensor_bytes,
                                  std::uint64_t block_bytes, std::uint64_t stripe_bytes = 0) {
  std::vector<kvcached_segment> segments;
  for (std::size_t i = 0; i < tensors; ++i) {
    CUdeviceptr at = 0;
    MUST(kvcached_tag_push("kv"));
    MUST(cuMemAlloc(&at, tensor_bytes));
    MUST(kvcached_tag_pop());
    segments.push_back({at, block_bytes, block_bytes});
  }
  kvcached_geometry geometry{};
  geometry.struct_size = sizeof geometry;
  geometry.segments = segments.data();
  geometry.segment_count = segments.size();
  geometry.blocks = tensor_bytes / block_bytes;
  geometry.stripe_bytes = stripe_bytes;
  kvcached_cache* cache = nullptr;
  MUST(kvcached_cache_create(&geometry, &cache));
  return cache;
}

}  // namespace kvcached::bench
