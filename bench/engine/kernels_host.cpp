// The engine's kernels as host functions, for the simulated GPU (SIM_GPU_KERNELS).

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

#include "bench/engine/kernels.inl"
#include "tests/sim/kernel.h"

namespace {

using kvcached::engine::Counters;
using kvcached::engine::Layer;
using kvcached::engine::Span;

template <typename T>
T argument(void** params, int i) {
  return *static_cast<T*>(params[i]);
}

Layer layer_of(void** params) {
  return {argument<std::uint32_t*>(params, 0), argument<std::uint32_t*>(params, 1),
          argument<std::uint32_t>(params, 4), argument<std::uint32_t>(params, 5),
          argument<std::uint32_t>(params, 6)};
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void kv_write(const sim_launch* launch,
                                                                void** params) {
  const Layer layer = layer_of(params);
  const auto* spans = argument<const Span*>(params, 2);
  const auto* tables = argument<const std::uint32_t*>(params, 3);
  for (unsigned i = 0; i < launch->grid_x; ++i) {
    kvcached::engine::write_span(layer, spans[i], tables);
  }
}

extern "C" __attribute__((visibility("default"))) void kv_check(const sim_launch* launch,
                                                                void** params) {
  const Layer layer = layer_of(params);
  const auto* spans = argument<const Span*>(params, 2);
  const auto* tables = argument<const std::uint32_t*>(params, 3);
  auto* counters = argument<Counters*>(params, 7);
  for (unsigned i = 0; i < launch->grid_x; ++i) {
    kvcached::engine::check_span(layer, spans[i], tables, counters);
  }
}
