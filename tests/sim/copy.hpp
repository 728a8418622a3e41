#pragma once

#include <cstddef>

#include "tests/sim/context.hpp"
#include "tests/sim/cuda_api.hpp"

namespace sim {

/// Rows of bytes; one row where height is 1.
struct Rows {
  CUdeviceptr to;
  std::size_t to_pitch;
  CUdeviceptr from;
  std::size_t from_pitch;
  std::size_t width;
  std::size_t height;
};

/// Copies in order of the stream. As documented, a copy of pageable host memory is over when the
/// call returns, as far as that memory is concerned; with `wait` any copy is.
CUresult copy(Context& context, CUstream stream, const Rows& rows, bool wait);

/// Writes `value`, of `element` bytes, `width` times into each row; with `wait` before it returns.
CUresult fill(Context& context, CUstream stream, const Rows& rows, unsigned value,
              std::size_t element, bool wait);

}  // namespace sim
