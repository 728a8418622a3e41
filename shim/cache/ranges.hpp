// Byte ranges of a buffer without a cache: grow, shrink, resident. The partition is fixed at the
// first grow: equal extents of about a 64th of the buffer, 2 to 64 MiB.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "policy/clock.hpp"
#include "policy/units.hpp"
#include "shim/cache/buffer.hpp"
#include "shim/cache/fences.hpp"
#include "shim/cache/result.hpp"
#include "shim/cache/worker.hpp"

namespace kvcached::cache {

// Thread-safe. All calls may wait for a driver call of another thread, but close() and finished().
class Ranges final : public Worker {
 public:
  // The byte ranges of this buffer: those it has, or new ones, for which the work of the context is
  // waited for. not_now: a capture is open. invalid: a cache has claimed the buffer, or it is
  // whole.
  static Result of(const std::shared_ptr<Buffer>& buffer, Waker& waker, const Clock& clock,
                   std::shared_ptr<Ranges>& out) noexcept;

  // Backs every byte of the range, or changes nothing: shortage when the pool or the GPU refuses
  // now. What was not resident before is zero; for that, extents that a shrink has given back and
  // that have not left yet are waited for (not_now: a capture is open). invalid: outside the
  // buffer's requested bytes.
  Result grow(Bytes offset, Bytes bytes) noexcept;
  // The extents wholly inside the range leave behind a fence, in work().
  Result shrink(Bytes offset, Bytes bytes) noexcept;
  // Bytes of the range that are backed and not given back.
  Result resident(Bytes offset, Bytes bytes, Bytes& out) const noexcept;

  Work work() noexcept override;
  void close() noexcept override;
  bool finished() const noexcept override { return finished_.load(std::memory_order_acquire); }

  std::uint64_t grows() const noexcept;         // extents backed
  std::uint64_t releases() const noexcept;      // extents released
  std::uint64_t short_grants() const noexcept;  // times the pool or the GPU refused

 private:
  enum class State : std::uint8_t { scratch, backed, leaving };
  struct Extent {  // the buffer's piece of the same number
    PageRun run;
    State state = State::scratch;
    Fences::Ticket ticket = 0;  // leaving: may go when it has passed; 0: no fence taken yet
  };

  Ranges(std::shared_ptr<Buffer> buffer, Waker& waker, const Clock& clock) noexcept;

  std::vector<PageRun> divide();  // makes extents_, before anybody knows it; throws std::bad_alloc

  // All with mutex_ held.
  Result start(std::span<const PageRun> runs) noexcept;
  Result check(Bytes offset, Bytes bytes) const noexcept;
  std::span<Extent> touched(Bytes offset, Bytes bytes) noexcept;
  std::size_t number(const Extent& extent) const noexcept;
  Result release_leaving(std::span<Extent> extents) noexcept;
  Result back(std::span<Extent> extents) noexcept;
  Result release(Extent& extent) noexcept;
  void leave(std::span<Extent> extents) noexcept;
  Result take_fence() noexcept;
  Work idle(Instant now) noexcept;

  const std::shared_ptr<Buffer> buffer_;
  Waker& waker_;
  const Clock& clock_;
  mutable std::mutex mutex_;  // guards all below; held across driver calls
  Fences fences_;
  std::vector<Extent> extents_;
  std::size_t leaving_ = 0;
  Instant fence_at_{};
  Instant sweep_at_{};
  bool lost_ = false;
  std::uint64_t grows_ = 0;
  std::uint64_t releases_ = 0;
  std::uint64_t short_grants_ = 0;
  std::atomic<bool> closed_{false};
  std::atomic<bool> finished_{false};
};

}  // namespace kvcached::cache
