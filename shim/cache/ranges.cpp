#include "shim/cache/ranges.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace kvcached::cache {

namespace {

using std::chrono::milliseconds;

constexpr std::uint64_t kExtents = 64;  // about so many in a buffer
constexpr Order kLargest = 5;           // 64 MiB
constexpr Duration kSoon = milliseconds(1);
constexpr Duration kRetry = milliseconds(50);

}  // namespace

Result Ranges::of(const std::shared_ptr<Buffer>& buffer, Waker& waker, const Clock& clock,
                  std::shared_ptr<Ranges>& out) noexcept {
  try {
    // make_shared cannot reach the private constructor.
    const std::shared_ptr<Ranges> fresh(new Ranges(buffer, waker, clock));
    const std::vector<PageRun> runs = fresh->divide();
    {
      const std::lock_guard lock(fresh->mutex_);
      const Result claimed = buffer->claim(fresh);
      if (claimed == Result::ok) {
        const Result started = fresh->start(runs);
        if (started == Result::ok) {
          out = fresh;
        } else {
          fresh->finished_ = true;
          buffer->unclaim();
        }
        return started;
      }
      if (claimed != Result::invalid) return claimed;
    }
    auto present = std::dynamic_pointer_cast<Ranges>(buffer->worker());
    if (present == nullptr) return Result::invalid;
    const std::lock_guard lock(present->mutex_);  // so its start() is over
    if (present->finished()) return Result::not_now;
    out = std::move(present);
    return Result::ok;
  } catch (const std::bad_alloc&) {
    return Result::failed;
  }
}

Ranges::Ranges(std::shared_ptr<Buffer> buffer, Waker& waker, const Clock& clock) noexcept
    : buffer_(std::move(buffer)),
      waker_(waker),
      clock_(clock),
      fences_(buffer_->driver(), buffer_->context()) {}

std::vector<PageRun> Ranges::divide() {
  const Pages pages = pages_up(buffer_->reserved());
  const Order order = std::min(kLargest, order_within(pages / kExtents));
  std::vector<PageRun> runs;
  append_runs(0, static_cast<std::uint32_t>(pages.value), order, runs);
  extents_.reserve(runs.size());
  for (const PageRun& run : runs) extents_.push_back(Extent{run});
  return runs;
}

Result Ranges::start(std::span<const PageRun> runs) noexcept {
  // Work in flight may use any address, and the caller is about to back some.
  const driver::Status status = buffer_->driver().synchronize(buffer_->context());
  return status == driver::Status::ok ? buffer_->repartition(runs) : result_of(status);
}

Result Ranges::check(Bytes offset, Bytes bytes) const noexcept {
  if (closed_ || lost_) return Result::lost;
  const Bytes size = buffer_->requested();
  return offset <= size && bytes <= size - offset ? Result::ok : Result::invalid;
}

std::size_t Ranges::number(const Extent& extent) const noexcept {
  return static_cast<std::size_t>(&extent - extents_.data());
}

std::span<Ranges::Extent> Ranges::touched(Bytes offset, Bytes bytes) noexcept {
  const auto first = std::partition_point(
      extents_.begin(), extents_.end(),
      [&](const Extent& extent) { return bytes_of(Pages(extent.run.end())) <= offset; });
  const auto last = std::partition_point(first, extents_.end(), [&](const Extent& extent) {
    return bytes_of(Pages(extent.run.first)) < offset + bytes;
  });
  return {first, last};
}

Result Ranges::grow(Bytes offset, Bytes bytes) noexcept {
  const std::lock_guard lock(mutex_);
  const Result checked = check(offset, bytes);
  if (checked != Result::ok || !bytes) return checked;
  const std::span<Extent> extents = touched(offset, bytes);
  const Result released = release_leaving(extents);
  return released == Result::ok ? back(extents) : released;
}

// What is leaving has old contents: it goes and comes back zero.
Result Ranges::release_leaving(std::span<Extent> extents) noexcept {
  const auto leaving = [](const Extent& e) { return e.state == State::leaving; };
  if (std::none_of(extents.begin(), extents.end(), leaving)) return Result::ok;
  const driver::Status status = buffer_->driver().synchronize(buffer_->context());
  if (status != driver::Status::ok) return result_of(status);
  for (Extent& extent : extents) {
    if (!leaving(extent)) continue;
    const Result result = release(extent);
    if (result != Result::ok) return result;
  }
  return Result::ok;
}

Result Ranges::back(std::span<Extent> extents) noexcept {
  Pages missing;
  for (const Extent& extent : extents) {
    if (extent.state != State::scratch) continue;
    const Pages of_extent = buffer_->missing(number(extent));
    if (!of_extent) return Result::failed;  // it should have gone and has not: not zero
    missing += of_extent;
  }
  if (missing && !buffer_->budget().charge(missing)) {
    ++short_grants_;
    return Result::shortage;
  }

  Pages surplus = missing;
  Result result = Result::ok;
  std::size_t done = 0;
  for (; done < extents.size(); ++done) {
    if (extents[done].state != State::scratch) continue;
    Pages kept;
    result = buffer_->back(number(extents[done]), kept);
    surplus -= kept;
    if (result != Result::ok) break;
  }
  if (result == Result::shortage) ++short_grants_;
  for (std::size_t i = 0; i < done; ++i) {
    if (extents[i].state != State::scratch) continue;
    if (result == Result::ok) {
      extents[i].state = State::backed;
      ++grows_;
    } else {
      Pages freed;
      buffer_->unback(number(extents[i]), freed);
      surplus += freed;
    }
  }
  if (surplus) buffer_->budget().uncharge(surplus);
  return result;
}

Result Ranges::shrink(Bytes offset, Bytes bytes) noexcept {
  const std::lock_guard lock(mutex_);
  const Result checked = check(offset, bytes);
  if (checked != Result::ok || !bytes) return checked;
  // The rest of the last page is nobody's: who gives the last byte back gives that too.
  const bool to_the_end = offset + bytes == buffer_->requested();
  const Bytes end = to_the_end ? buffer_->reserved() : offset + bytes;
  std::span<Extent> extents = touched(offset, bytes);
  if (bytes_of(Pages(extents.front().run.first)) < offset) extents = extents.subspan(1);
  if (!extents.empty() && bytes_of(Pages(extents.back().run.end())) > end) {
    extents = extents.first(extents.size() - 1);
  }
  leave(extents);
  if (leaving_ != 0) waker_.wake();
  return Result::ok;
}

void Ranges::leave(std::span<Extent> extents) noexcept {
  for (Extent& extent : extents) {
    if (extent.state != State::backed) continue;
    extent.state = State::leaving;
    extent.ticket = 0;
    ++leaving_;
  }
}

Result Ranges::resident(Bytes offset, Bytes bytes, Bytes& out) const noexcept {
  const std::lock_guard lock(mutex_);
  const Result checked = check(offset, bytes);
  if (checked != Result::ok) return checked;
  out = Bytes();
  for (const Extent& extent : extents_) {
    if (extent.state != State::backed) continue;
    const Bytes begin = std::max(offset, bytes_of(Pages(extent.run.first)));
    const Bytes end = std::min(offset + bytes, bytes_of(Pages(extent.run.end())));
    out += end.minus_clamped(begin);
  }
  return Result::ok;
}

// pre: the extent is leaving and the work that used it is done.
Result Ranges::release(Extent& extent) noexcept {
  Pages freed;
  const Result result = buffer_->unback(number(extent), freed);
  if (freed) buffer_->budget().uncharge(freed);
  extent.state = State::scratch;
  --leaving_;
  ++releases_;
  return result;
}

Work Ranges::work() noexcept {
  const Instant now = clock_.now();
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return {false, now + kSoon};
  if (finished_) return {};
  if (closed_) leave(extents_);
  if (buffer_->use() == Use::gone) {
    finished_ = true;
    return {};
  }
  if (closed_ && leaving_ == 0) {
    finished_ = true;
    buffer_->unclaim();
    return {};
  }
  if (lost_) return {};

  if (fences_.poll() == Result::lost) lost_ = true;
  bool needs_fence = false;
  for (Extent& extent : extents_) {
    if (extent.state != State::leaving) continue;
    if (extent.ticket == 0) {
      needs_fence = true;
    } else if (fences_.passed(extent.ticket)) {
      release(extent);
      return {true};
    }
  }
  if (needs_fence && now >= fence_at_) {
    const Result result = take_fence();
    if (result == Result::ok) return {true};
    fence_at_ = now + kSoon;
    lost_ = result == Result::lost;
  }
  if (buffer_->stranded() != 0 && now >= sweep_at_) {
    Pages freed;
    buffer_->sweep(freed);
    if (freed) buffer_->budget().uncharge(freed);
    sweep_at_ = now + kRetry;
  }
  return idle(now);
}

Result Ranges::take_fence() noexcept {
  Fences::Ticket ticket = 0;
  const Result result = fences_.take(ticket);
  if (result != Result::ok) return result;
  for (Extent& extent : extents_) {
    if (extent.state == State::leaving && extent.ticket == 0) extent.ticket = ticket;
  }
  return Result::ok;
}

Work Ranges::idle(Instant now) noexcept {
  if (lost_) return {};
  if (leaving_ != 0) return {false, now + (fences_.open() ? fences_.pause() : kSoon)};
  if (buffer_->stranded() != 0) return {false, sweep_at_};
  return {};
}

void Ranges::close() noexcept {
  closed_ = true;
  waker_.wake();
}

std::uint64_t Ranges::grows() const noexcept {
  const std::lock_guard lock(mutex_);
  return grows_;
}

std::uint64_t Ranges::releases() const noexcept {
  const std::lock_guard lock(mutex_);
  return releases_;
}

std::uint64_t Ranges::short_grants() const noexcept {
  const std::lock_guard lock(mutex_);
  return short_grants_;
}

}  // namespace kvcached::cache
