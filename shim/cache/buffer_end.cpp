// How a buffer ends: everything that it has of the driver goes back, in as many tries as that
// takes.
#include "shim/cache/buffer.hpp"
#include "shim/log.hpp"

namespace kvcached::cache {

namespace {
constexpr int kMostRefusals = 30;
constexpr int kLastTries = 4;
}  // namespace

Buffer::~Buffer() {
  const std::lock_guard lock(mutex_);
  // Nobody comes back to this one.
  for (int i = 0; i < kLastTries && end(false) == Result::not_now; ++i) {
  }
}

Result Buffer::destroy() noexcept {
  if (use() != Use::gone) {
    const driver::Status status = driver_.synchronize(context_);
    if (status == driver::Status::not_now) return Result::not_now;
    if (status != driver::Status::ok && status != driver::Status::lost) {
      // Nobody knows whether kernels still use the memory, so it stays.
      const std::lock_guard lock(mutex_);
      if (++waits_refused_ == kMostRefusals)
        warn("the driver does not tell when work is done: memory that was freed stays mapped");
      return Result::not_now;
    }
    if (const std::shared_ptr<Worker> owner = worker()) owner->close();
  }
  std::shared_ptr<Worker> last;  // dropped after the lock: it may own us
  const std::lock_guard lock(mutex_);
  last.swap(worker_);
  return end(false);
}

Result Buffer::abandon() noexcept {
  if (const std::shared_ptr<Worker> owner = worker()) owner->close();
  std::shared_ptr<Worker> last;
  const std::lock_guard lock(mutex_);
  last.swap(worker_);
  return end(true);
}

// Nobody else knows it yet.
Result Buffer::withdraw() noexcept {
  const std::lock_guard lock(mutex_);
  return end(false);
}

Result Buffer::end(bool context_gone) noexcept {
  if (use() != Use::gone) {
    use_ = Use::gone;
    for (Piece& piece : pieces_) {
      piece.owned = piece.held;
      piece.mapped = !piece.lost;
    }
  }
  Pages freed;
  bool left = false;
  bool lost = false;
  for (Piece& piece : pieces_) {
    if (piece.mapped) {
      const driver::Status status = unmap(piece);
      piece.mapped = status != driver::Status::ok;
      lost = lost || status == driver::Status::lost;
      left = left || piece.mapped;
    }
    if (piece.owned) {
      const driver::Status status = driver_.release(piece.handle);
      piece.owned = status != driver::Status::ok;
      lost = lost || status == driver::Status::lost;
      left = left || piece.owned;
    }
    const bool is_free = !piece.owned && (!piece.mapped || !piece.backed);
    if (piece.held && (context_gone || is_free)) {
      freed += Pages(piece.run.count());
      piece.held = false;
    }
  }
  if (!left && has_range_) {
    const driver::Status status = driver_.unreserve(base_, reserved());
    lost = lost || status == driver::Status::lost;
    left = status != driver::Status::ok;
    has_range_ = left;
  }
  held_ -= freed.value;
  if (freed) budget_.uncharge(freed);
  if (left && !lost && ++refusals_ < kMostRefusals) return Result::not_now;
  if (left && !lost) warn("the driver keeps what is left of an allocation that was freed");
  has_range_ = false;
  pieces_.clear();
  stranded_ = 0;
  give_scratch(orders_);
  return Result::ok;
}

}  // namespace kvcached::cache
