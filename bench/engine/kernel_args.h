#pragma once

#include <cstdint>

/// What host and device share. Included by nvcc, too.
namespace kvcached::engine {

/// Consecutive tokens of one request: positions [position, position + count), whose blocks are
/// tables[table + p / block_tokens].
struct Span {
  std::uint64_t seed;
  std::uint32_t position;
  std::uint32_t count;
  std::uint32_t table;
  std::uint32_t unused;
};

/// In device memory. A row is the K or the V of one token in one layer.
struct Counters {
  std::uint64_t rows_checked;
  std::uint64_t rows_wrong;
  std::uint64_t wrong_seed;  // of the first wrong row, as are the next four
  std::uint32_t wrong_layer;
  std::uint32_t wrong_value;  // 0: K, 1: V
  std::uint32_t wrong_position;
  std::uint32_t wrong_block;
};

}  // namespace kvcached::engine
