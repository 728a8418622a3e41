#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "shim/include/kvcached.h"

namespace kvcached::engine {

using BlockNumber = std::uint32_t;

/// Where the scheduler takes its blocks from. One thread.
class Blocks {
 public:
  virtual ~Blocks() = default;

  /// Blocks that `take` gives at once.
  virtual std::uint64_t available() = 0;
  /// At most `count` blocks, appended to `taken`; fewer where there are no more. A caller that
  /// cannot go on without them is `urgent` and accepts a short wait.
  virtual std::uint64_t take(std::uint64_t count, bool urgent, std::vector<BlockNumber>& taken) = 0;
  /// Work already launched may still use them.
  virtual void give_back(const std::vector<BlockNumber>& blocks) = 0;
  /// A request waits for `count` blocks in all: to be said at each step for as long as it does.
  virtual void ask(std::uint64_t count) = 0;
  /// How many more blocks will be wanted soon.
  virtual void expect(std::uint64_t count) = 0;
  /// Physical bytes held by the buffers of K and V.
  virtual std::uint64_t resident_bytes() = 0;
};

/// A fixed number of blocks in plain memory.
class StaticBlocks final : public Blocks {
 public:
  StaticBlocks(std::uint64_t blocks, std::uint64_t bytes);

  std::uint64_t available() override { return free_.size(); }
  std::uint64_t take(std::uint64_t count, bool urgent, std::vector<BlockNumber>& taken) override;
  void give_back(const std::vector<BlockNumber>& blocks) override;
  void ask(std::uint64_t /*count*/) override {}
  void expect(std::uint64_t /*count*/) override {}
  std::uint64_t resident_bytes() override { return bytes_; }

 private:
  std::vector<BlockNumber> free_;
  std::uint64_t bytes_;
};

/// Blocks of a kvcached cache, which it owns. Throws std::runtime_error when the cache is lost.
class ElasticBlocks final : public Blocks {
 public:
  explicit ElasticBlocks(kvcached_cache* cache);
  ~ElasticBlocks() override;
  ElasticBlocks(const ElasticBlocks&) = delete;
  ElasticBlocks& operator=(const ElasticBlocks&) = delete;

  std::uint64_t available() override;
  std::uint64_t take(std::uint64_t count, bool urgent, std::vector<BlockNumber>& taken) override;
  void give_back(const std::vector<BlockNumber>& blocks) override;
  void ask(std::uint64_t count) override;
  void expect(std::uint64_t count) override;
  std::uint64_t resident_bytes() override;

 private:
  kvcached_cache* cache_;
};

/// Block numbers as ranges, in ascending order.
std::vector<kvcached_range> as_ranges(std::vector<BlockNumber> blocks);

}  // namespace kvcached::engine
