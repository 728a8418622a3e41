#include "bench/engine/blocks.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

namespace kvcached::engine {
namespace {

// What mapping a few stripes takes, many times over; a step must not stall for longer.
constexpr std::int64_t kUrgentWaitMs = 20;

void check(int result, const char* call) {
  if (result != KVCACHED_OK) {
    throw std::runtime_error(std::string(call) + " answered " + std::to_string(result));
  }
}

}  // namespace

StaticBlocks::StaticBlocks(std::uint64_t blocks, std::uint64_t bytes) : bytes_(bytes) {
  free_.reserve(blocks);
  for (std::uint64_t b = blocks; b > 0; --b) {
    free_.push_back(static_cast<BlockNumber>(b - 1));
  }
}

std::uint64_t StaticBlocks::take(std::uint64_t count, bool /*urgent*/,
                                 std::vector<BlockNumber>& taken) {
  const std::uint64_t given = std::min<std::uint64_t>(count, free_.size());
  for (std::uint64_t i = 0; i < given; ++i) {
    taken.push_back(free_.back());
    free_.pop_back();
  }
  return given;
}

void StaticBlocks::give_back(const std::vector<BlockNumber>& blocks) {
  free_.insert(free_.end(), blocks.begin(), blocks.end());
}

ElasticBlocks::ElasticBlocks(kvcached_cache* cache) : cache_(cache) {}

ElasticBlocks::~ElasticBlocks() { kvcached_cache_destroy(cache_); }

std::uint64_t ElasticBlocks::available() { return kvcached_cache_available(cache_); }

std::uint64_t ElasticBlocks::take(std::uint64_t count, bool urgent,
                                  std::vector<BlockNumber>& taken) {
  std::array<kvcached_range, 64> ranges{};
  std::uint64_t given = 0;
  // The ranges may be too few for fragmented stripes: then it gives less, and is asked again.
  while (given < count) {
    std::size_t used = ranges.size();
    const int result = kvcached_cache_acquire(cache_, count - given, 0, urgent ? kUrgentWaitMs : 0,
                                              ranges.data(), &used);
    if (result != KVCACHED_SHORT) {
      check(result, "kvcached_cache_acquire");
    }
    for (std::size_t r = 0; r < used; ++r) {
      for (std::uint64_t b = 0; b < ranges.at(r).count; ++b) {
        taken.push_back(static_cast<BlockNumber>(ranges.at(r).first + b));
      }
      given += ranges.at(r).count;
    }
    if (used < ranges.size()) {
      break;
    }
  }
  return given;
}

void ElasticBlocks::give_back(const std::vector<BlockNumber>& blocks) {
  const std::vector<kvcached_range> ranges = as_ranges(blocks);
  if (!ranges.empty()) {
    check(kvcached_cache_release(cache_, ranges.data(), ranges.size()), "kvcached_cache_release");
  }
}

void ElasticBlocks::ask(std::uint64_t count) {
  std::size_t none = 0;  // no room for ranges: it takes nothing
  const int result = kvcached_cache_acquire(cache_, count, 0, 0, nullptr, &none);
  if (result != KVCACHED_SHORT) check(result, "kvcached_cache_acquire");
}

void ElasticBlocks::expect(std::uint64_t count) {
  check(kvcached_cache_expect(cache_, count), "kvcached_cache_expect");
}

std::uint64_t ElasticBlocks::resident_bytes() {
  kvcached_cache_info info{};
  info.struct_size = sizeof info;
  check(kvcached_cache_describe(cache_, &info), "kvcached_cache_describe");
  return info.backed_bytes;
}

std::vector<kvcached_range> as_ranges(std::vector<BlockNumber> blocks) {
  std::sort(blocks.begin(), blocks.end());
  std::vector<kvcached_range> ranges;
  for (const BlockNumber b : blocks) {
    if (!ranges.empty() && ranges.back().first + ranges.back().count == b) {
      ++ranges.back().count;
    } else {
      ranges.push_back({b, 1});
    }
  }
  return ranges;
}

}  // namespace kvcached::engine
