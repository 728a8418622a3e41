// How a piece of a buffer gets an extent of its own and loses it again.
#include <algorithm>
#include <new>

#include "shim/cache/buffer.hpp"

namespace kvcached::cache {

Bytes Buffer::resident(Bytes offset, Bytes bytes) const noexcept {
  const std::lock_guard lock(mutex_);
  const std::uint64_t from = std::min(offset, requested_).value;
  const std::uint64_t to = from + std::min(bytes, requested_ - Bytes(from)).value;
  auto piece = std::partition_point(pieces_.begin(), pieces_.end(), [&](const Piece& p) {
    return bytes_of(Pages(p.run.end())).value <= from;
  });
  Bytes sum;
  for (; piece != pieces_.end(); ++piece) {
    const std::uint64_t begin = std::max(from, bytes_of(Pages(piece->run.first)).value);
    const std::uint64_t end = std::min(to, bytes_of(Pages(piece->run.end())).value);
    if (begin >= end) break;
    if (piece->backed && piece->needs != 0) sum += Bytes(end - begin);
  }
  return sum;
}

std::size_t Buffer::piece_count() const noexcept {
  const std::lock_guard lock(mutex_);
  return pieces_.size();
}

PageRun Buffer::piece_run(std::size_t piece) const noexcept {
  const std::lock_guard lock(mutex_);
  return piece < pieces_.size() ? pieces_[piece].run : PageRun{};
}

bool Buffer::piece_lost(std::size_t piece) const noexcept {
  const std::lock_guard lock(mutex_);
  return piece >= pieces_.size() || pieces_[piece].lost;
}

Pages Buffer::missing(std::size_t piece) const noexcept {
  const std::lock_guard lock(mutex_);
  if (piece >= pieces_.size() || pieces_[piece].backed) return Pages();
  return Pages(pieces_[piece].run.count());
}

Result Buffer::back(std::size_t piece, Pages& kept) noexcept {
  const std::lock_guard lock(mutex_);
  kept = Pages();
  if (use() == Use::gone) return Result::lost;
  return back_locked(pieces_[piece], kept);
}

Result Buffer::back_locked(Piece& piece, Pages& kept) noexcept {
  if (piece.backed) {
    if (piece.needs++ == 0) --stranded_;
    return Result::ok;
  }
  // With an extent that could not be released, the books would lose track of one of the two.
  if (piece.lost || piece.held) return Result::failed;

  driver::Status status = driver_.create(device(), bytes(piece.run), piece.handle);
  if (status != driver::Status::ok) return result_of(status);
  piece.held = true;

  status = unalias(piece.run);
  if (status == driver::Status::ok) {
    status = driver_.map(address(piece.run), bytes(piece.run), piece.handle, device());
    if (status == driver::Status::ok) {
      piece.backed = true;
      piece.needs = 1;
    } else {
      restore(piece);
    }
  }
  const bool released = !piece.backed && release_extent(piece);
  if (!released) {
    kept = Pages(piece.run.count());
    held_ += kept.value;
  }
  if (piece.stranded()) ++stranded_;
  return result_of(status);
}

Result Buffer::unback(std::size_t piece, Pages& freed) noexcept {
  const std::lock_guard lock(mutex_);
  freed = Pages();
  if (use() == Use::gone) return Result::lost;
  Piece& unneeded = pieces_[piece];
  if (unneeded.needs == 0) return Result::invalid;
  if (--unneeded.needs != 0) return Result::ok;
  ++stranded_;  // until it is gone
  return strip_locked(unneeded, freed);
}

// pre: the piece is backed, not needed, and counted as stranded.

Result Buffer::strip_locked(Piece& piece, Pages& freed) noexcept {
  driver::Status status = unmap(piece);
  if (status != driver::Status::ok) return result_of(status);
  status = alias(piece.run);
  if (status == driver::Status::ok) {
    piece.backed = false;
  } else {
    // Back to the state before; if even that fails, nothing is mapped here any more.
    const driver::Status back =
        driver_.map(address(piece.run), bytes(piece.run), piece.handle, device());
    if (back == driver::Status::ok) return result_of(status);
    piece.backed = false;
    piece.lost = true;
  }
  return settle_release(piece, freed) ? result_of(status) : Result::failed;
}

// pre: the piece is not backed, and counted as stranded for its extent.
bool Buffer::settle_release(Piece& piece, Pages& freed) noexcept {
  if (!release_extent(piece)) return false;
  freed = Pages(piece.run.count());
  held_ -= freed.value;
  --stranded_;
  return true;
}

// pre: the piece's extent is not mapped. False when the driver keeps it.
bool Buffer::release_extent(Piece& piece) noexcept {
  piece.held = driver_.release(piece.handle) != driver::Status::ok;
  return !piece.held;
}

void Buffer::sweep(Pages& freed) noexcept {
  const std::lock_guard lock(mutex_);
  freed = Pages();
  if (use() == Use::gone) return;
  for (Piece& piece : pieces_) {
    if (!piece.stranded()) continue;
    Pages of_piece;
    if (piece.backed) {
      strip_locked(piece, of_piece);
    } else {
      settle_release(piece, of_piece);
    }
    freed += of_piece;
  }
}

Result Buffer::back_whole() noexcept {
  const std::lock_guard lock(mutex_);
  if (const Result refused = refuse_to_back(); refused != Result::ok) return refused;
  if (use() == Use::whole) return Result::ok;
  return back_pieces(0, pieces_.size());
}

Result Buffer::back_part(Bytes offset, Bytes bytes) noexcept {
  const std::lock_guard lock(mutex_);
  if (const Result refused = refuse_to_back(); refused != Result::ok) return refused;
  if (use() == Use::whole || offset >= reserved() || !bytes) return Result::ok;
  const auto first = static_cast<std::uint32_t>(offset.value / kPageSize.value);
  const auto end =
      static_cast<std::uint32_t>(pages_up(offset + std::min(bytes, reserved() - offset)).value);
  // Where no smaller extent is to be had, the whole piece is backed.
  cut(first);
  cut(end);
  const auto ends_after = [](const Piece& p, std::uint32_t page) { return p.run.end() <= page; };
  const auto from = std::lower_bound(pieces_.begin(), pieces_.end(), first, ends_after);
  const auto to =
      std::lower_bound(from, pieces_.end(), end,
                       [](const Piece& p, std::uint32_t page) { return p.run.first < page; });
  return back_pieces(static_cast<std::size_t>(from - pieces_.begin()),
                     static_cast<std::size_t>(to - pieces_.begin()));
}

Result Buffer::refuse_to_back() const noexcept {
  if (use() == Use::gone) return Result::lost;
  return use() == Use::claimed ? Result::invalid : Result::ok;
}

Result Buffer::back_pieces(std::size_t from, std::size_t to) noexcept {
  std::vector<std::size_t> wanted;
  Pages missing;
  try {
    for (std::size_t i = from; i < to; ++i) {
      if (pieces_[i].backed && pieces_[i].needs != 0) continue;
      if (pieces_[i].lost) return Result::failed;
      if (!pieces_[i].backed) missing += Pages(pieces_[i].run.count());
      wanted.push_back(i);
    }
  } catch (const std::bad_alloc&) {
    return Result::failed;
  }
  if (missing && !budget_.charge(missing)) return Result::shortage;

  Pages surplus = missing;
  Result result = Result::ok;
  std::size_t done = 0;
  while (done < wanted.size() && result == Result::ok) {
    Pages kept;
    result = back_locked(pieces_[wanted[done]], kept);
    surplus -= kept;
    if (result == Result::ok) ++done;
  }
  if (result != Result::ok) {
    for (std::size_t i = 0; i < done; ++i) {
      Pages freed;
      --pieces_[wanted[i]].needs;
      ++stranded_;
      strip_locked(pieces_[wanted[i]], freed);
      surplus += freed;
    }
  } else if (std::all_of(pieces_.begin(), pieces_.end(), [](const Piece& p) { return p.backed; })) {
    use_ = Use::whole;
    give_unused_scratch();
  }
  if (surplus) budget_.uncharge(surplus);
  return result;
}

}  // namespace kvcached::cache
