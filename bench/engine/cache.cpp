#include "bench/engine/cache.hpp"

#include <utility>

namespace kvcached::engine {
namespace {

std::uint64_t blocks_in(const ModelShape& shape, std::uint64_t bytes) {
  return bytes / shape.whole_block_bytes();
}

std::vector<DeviceBuffer> allocate(const ModelShape& shape, std::uint64_t blocks) {
  std::vector<DeviceBuffer> buffers;
  buffers.reserve(std::size_t{2} * shape.layers);
  for (std::uint32_t i = 0; i < 2 * shape.layers; ++i) {
    buffers.emplace_back(blocks * shape.block_bytes());
  }
  return buffers;
}

class ElasticTag {
 public:
  ElasticTag() { kvcached_tag_push("kv"); }
  ~ElasticTag() { kvcached_tag_pop(); }
  ElasticTag(const ElasticTag&) = delete;
  ElasticTag& operator=(const ElasticTag&) = delete;
};

std::string answered(const char* call, int result) {
  return std::string(call) + " answered " + std::to_string(result);
}

/// Leaves `cache` without blocks and says why, or makes it elastic.
void try_elastic(const Options& options, KvCache& cache) {
  if (options.elastic_bytes == 0) {
    cache.reason = "not asked for";
    return;
  }
  if (!KVCACHED_PRESENT()) {
    cache.reason = "no kvcached library";
    return;
  }
  const ModelShape& shape = options.shape;
  const kvcached_model model{sizeof(kvcached_model),
                             options.name.c_str(),
                             shape.layers,
                             shape.kv_heads,
                             shape.head_dim,
                             ModelShape::kBytesPerElement,
                             options.trace_settings.max_tokens,
                             shape.block_tokens,
                             0};
  int result = kvcached_model_register(&model, nullptr);
  if (result != KVCACHED_OK) {
    cache.reason = answered("kvcached_model_register", result);
    return;
  }
  const std::uint64_t blocks = blocks_in(shape, options.elastic_bytes);
  {
    const ElasticTag tag;
    cache.buffers = allocate(shape, blocks);
  }
  std::vector<kvcached_segment> segments;
  for (const DeviceBuffer& buffer : cache.buffers) {
    segments.push_back({buffer.address(), shape.block_bytes(), shape.block_bytes()});
  }
  const kvcached_geometry geometry{
      sizeof(kvcached_geometry), segments.data(), segments.size(), blocks, nullptr, 0, 0};
  kvcached_cache* handle = nullptr;
  result = kvcached_cache_create(&geometry, &handle);
  if (result != KVCACHED_OK) {
    cache.buffers.clear();
    cache.reason = answered("kvcached_cache_create", result);
    return;
  }
  cache.blocks = std::make_unique<ElasticBlocks>(handle);
  cache.block_count = blocks;
  cache.elastic = true;
}

}  // namespace

KvCache make_cache(const Options& options) {
  KvCache cache;
  try_elastic(options, cache);
  if (!cache.elastic) {
    cache.block_count = blocks_in(options.shape, options.kv_bytes);
    cache.buffers = allocate(options.shape, cache.block_count);
    cache.blocks = std::make_unique<StaticBlocks>(
        cache.block_count, cache.block_count * options.shape.whole_block_bytes());
  }
  return cache;
}

}  // namespace kvcached::engine
