#include "shim/cache/buffer.hpp"

#include <algorithm>
#include <limits>
#include <new>
#include <utility>

namespace kvcached::cache {

namespace {

constinit std::atomic<std::uint64_t> g_last_id{0};

constexpr std::uint32_t bit(Order order) { return 1U << order; }

std::uint32_t orders_of(std::span<const PageRun> runs) {
  std::uint32_t orders = 0;
  for (const PageRun& run : runs) orders |= bit(run.order);
  return orders;
}

}  // namespace

Result Buffer::create(const Ground& ground, Bytes requested, driver::ContextId context,
                      std::shared_ptr<Buffer>& out) noexcept {
  // Half the range of page numbers, so that sums of two stay within it.
  constexpr Bytes kMost = bytes_of(Pages(std::numeric_limits<std::uint32_t>::max() / 2));
  if (!requested || requested > kMost) return Result::invalid;
  try {
    // make_shared cannot reach the private constructor.
    std::shared_ptr<Buffer> buffer(new Buffer(ground, requested, context));
    const Result result = buffer->reserve_and_alias();
    if (result == Result::ok || buffer->withdraw() == Result::not_now) out = std::move(buffer);
    return result;
  } catch (const std::bad_alloc&) {
    return Result::failed;
  }
}

Buffer::Buffer(const Ground& ground, Bytes requested, driver::ContextId context) noexcept
    : driver_(ground.driver),
      budget_(ground.budget),
      scratch_(ground.scratch),
      context_(context),
      requested_(requested),
      pages_(static_cast<std::uint32_t>(pages_up(requested).value)),
      id_(g_last_id.fetch_add(1, std::memory_order_relaxed) + 1) {}

bool Buffer::set_sync_memops(bool on) noexcept {
  SyncMemops before = on ? SyncMemops::off : SyncMemops::on;
  return sync_memops_.compare_exchange_strong(before, on ? SyncMemops::on : SyncMemops::off);
}

Result Buffer::reserve_and_alias() {
  const driver::Status status = driver_.reserve(reserved(), base_);
  if (status != driver::Status::ok) {
    use_ = Use::gone;
    return result_of(status);
  }
  has_range_ = true;
  // A GPU that is nearly full may still have room for smaller scratch extents.
  Order cap = scratch_.largest();
  Result result = alias_all(cap);
  while (result == Result::shortage && cap > 0) result = alias_all(--cap);
  return result;
}

Result Buffer::alias_all(Order cap) {
  std::vector<PageRun> runs;
  append_runs(0, pages_, cap, runs);
  std::vector<Piece> pieces;
  pieces.reserve(runs.size());
  Result result = take_scratch(orders_of(runs));
  if (result != Result::ok) return result;
  for (const PageRun& run : runs) {
    const driver::Status status = alias(run);
    if (status != driver::Status::ok) {
      result = result_of(status);
      break;
    }
    pieces.push_back(Piece{run});
  }
  pieces_ = std::move(pieces);
  if (result == Result::ok) return result;
  std::erase_if(pieces_,
                [this](const Piece& piece) { return unalias(piece.run) == driver::Status::ok; });
  if (!pieces_.empty()) return Result::failed;  // nothing can be aliased where they are
  give_unused_scratch();
  return result;
}

Result Buffer::claim(std::shared_ptr<Worker> worker) noexcept {
  const std::lock_guard lock(mutex_);
  if (use() == Use::gone) return Result::lost;
  if (use() != Use::unclaimed) return Result::invalid;
  worker_ = std::move(worker);
  use_ = Use::claimed;
  return Result::ok;
}

void Buffer::unclaim() noexcept {
  std::shared_ptr<Worker> last;  // dropped after the lock: it may own us
  const std::lock_guard lock(mutex_);
  if (use() != Use::claimed) return;
  last.swap(worker_);
  use_ = Use::unclaimed;
}

std::shared_ptr<Worker> Buffer::worker() const noexcept {
  const std::lock_guard lock(mutex_);
  return worker_;
}

// ---- Partition

bool Buffer::partitions(std::span<const PageRun> runs) const noexcept {
  std::uint64_t next = 0;
  for (const PageRun& run : runs) {
    if (run.first != next || run.order > kMaxOrder) return false;
    next += run.count();
  }
  return next == pages_;
}

Result Buffer::repartition(std::span<const PageRun> runs) noexcept {
  const std::lock_guard lock(mutex_);
  if (use() == Use::gone) return Result::lost;
  if (!partitions(runs)) return Result::invalid;
  for (const Piece& piece : pieces_) {
    if (piece.backed || piece.lost || piece.held) return Result::failed;
  }
  std::vector<Piece> pieces;
  try {
    pieces.reserve(std::max(runs.size(), pieces_.size()) + pieces_.size());
  } catch (const std::bad_alloc&) {
    return Result::failed;
  }
  Result result = take_scratch(orders_of(runs));
  if (result != Result::ok) return result;

  // From one place where an old and a new piece both end to the next: so the holes are small and
  // short-lived, and a failure has little to put back.
  std::size_t old_at = 0;
  std::size_t new_at = 0;
  while (old_at < pieces_.size()) {
    const std::size_t old_from = old_at;
    const std::size_t new_from = new_at;
    std::uint32_t old_end = pieces_[old_at++].run.end();
    std::uint32_t new_end = runs[new_at++].end();
    while (old_end != new_end) {
      if (old_end < new_end) {
        old_end = pieces_[old_at++].run.end();
      } else {
        new_end = runs[new_at++].end();
      }
    }
    const std::span<Piece> before(pieces_.data() + old_from, old_at - old_from);
    const std::span<const PageRun> after = runs.subspan(new_from, new_at - new_from);
    if (before.size() == 1 && after.size() == 1) {
      pieces.push_back(before.front());
      continue;
    }
    result = realias(before, after, pieces);
    if (result != Result::ok) {
      pieces.insert(pieces.end(), pieces_.begin() + static_cast<std::ptrdiff_t>(old_at),
                    pieces_.end());
      break;
    }
  }
  pieces_.swap(pieces);
  give_unused_scratch();
  return result;
}

Result Buffer::realias(std::span<Piece> before, std::span<const PageRun> after,
                       std::vector<Piece>& now) noexcept {
  auto status = driver::Status::ok;
  std::size_t gone = 0;
  while (gone < before.size() && status == driver::Status::ok) {
    status = unalias(before[gone].run);
    if (status == driver::Status::ok) ++gone;
  }
  std::size_t made = 0;
  while (made < after.size() && status == driver::Status::ok) {
    status = alias(after[made]);
    if (status == driver::Status::ok) ++made;
  }
  const bool all = made == after.size();
  while (!all && made != 0 && unalias(after[made - 1]) == driver::Status::ok) --made;
  if (made == 0) {
    for (Piece& piece : before.first(gone)) restore(piece);
    now.insert(now.end(), before.begin(), before.end());
    return result_of(status);
  }
  // Of what cannot be undone the rest is made.
  for (std::size_t i = 0; i < after.size(); ++i) {
    Piece& piece = now.emplace_back(Piece{after[i]});
    if (i >= made) restore(piece);
  }
  return result_of(status);
}

void Buffer::cut(std::uint32_t page) noexcept {
  const auto piece = std::partition_point(pieces_.begin(), pieces_.end(),
                                          [=](const Piece& p) { return p.run.end() <= page; });
  if (piece == pieces_.end() || piece->run.first >= page || piece->held || piece->lost) {
    return;
  }
  try {
    std::vector<PageRun> runs;
    append_runs(piece->run.first, page - piece->run.first, piece->run.order, runs);
    append_runs(page, piece->run.end() - page, piece->run.order, runs);
    std::vector<Piece> now;
    now.reserve(runs.size());
    pieces_.reserve(pieces_.size() + runs.size());  // moves them
    const auto at = std::find_if(pieces_.begin(), pieces_.end(),
                                 [&](const Piece& p) { return p.run.first == runs.front().first; });
    if (take_scratch(orders_of(runs)) != Result::ok) return;
    realias({&*at, 1}, runs, now);
    *at = now.front();
    pieces_.insert(at + 1, now.begin() + 1, now.end());
    give_unused_scratch();
  } catch (const std::bad_alloc&) {
    return;
  }
}

void Buffer::restore(Piece& unmapped) noexcept {
  unmapped.lost = alias(unmapped.run) != driver::Status::ok;
}

// ---- Scratch

Result Buffer::take_scratch(std::uint32_t orders) noexcept {
  const std::uint32_t before = orders_;
  for (Order order = 0; order <= kMaxOrder; ++order) {
    if ((orders & ~orders_ & bit(order)) == 0) continue;
    const Result result = scratch_.take(order);
    if (result != Result::ok) {
      give_scratch(orders_ & ~before);
      return result;
    }
    orders_ |= bit(order);
  }
  return Result::ok;
}

void Buffer::give_scratch(std::uint32_t orders) noexcept {
  for (Order order = 0; order <= kMaxOrder; ++order) {
    if ((orders & bit(order)) != 0) scratch_.give(order);
  }
  orders_ &= ~orders;
}

void Buffer::give_unused_scratch() noexcept {
  std::uint32_t used = 0;
  // A whole buffer never goes back to scratch. A claimed one may, and must not have to ask then.
  if (use() != Use::whole) {
    for (const Piece& piece : pieces_) used |= bit(piece.run.order);
  }
  give_scratch(orders_ & ~used);
}

driver::Address Buffer::address(const PageRun& run) const noexcept {
  return base_ + bytes_of(Pages(run.first)).value;
}

driver::Status Buffer::alias(const PageRun& run) noexcept {
  return scratch_.alias(run.order, address(run));
}

driver::Status Buffer::unalias(const PageRun& run) noexcept {
  return scratch_.unalias(run.order, address(run));
}

driver::Status Buffer::unmap(const Piece& piece) noexcept {
  return piece.backed ? driver_.unmap(address(piece.run), bytes(piece.run)) : unalias(piece.run);
}

}  // namespace kvcached::cache
