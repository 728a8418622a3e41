#include "shim/adapters/free_blocks.hpp"

#include <algorithm>
#include <limits>
#include <tuple>

namespace kvcached::adapters {

namespace {
constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();
}

FreeBlocks::FreeBlocks(std::span<const Block> sizes)
    : stripes_(sizes.size()), head_(kNone), tail_(kNone), current_(kNone) {
  for (Stripe stripe = 0; stripe < sizes.size(); ++stripe) {
    Part& part = stripes_[stripe];
    part.first = static_cast<Block>(nodes_.size());
    part.size = sizes[stripe];
    part.stack.reserve(part.size);
    nodes_.resize(nodes_.size() + part.size, Node{kNone, kNone, stripe, State::absent});
  }
}

bool FreeBlocks::take(std::size_t count, Block* out) noexcept {
  if (count > free()) return false;
  while (count != 0 && loose_ != 0) {
    if (current_ == kNone) current_ = fullest();
    std::vector<Block>& stack = stripes_[current_].stack;
    const std::size_t part = std::min(count, stack.size());
    for (std::size_t i = 0; i < part; ++i) {
      nodes_[stack.back()].state = State::live;
      *out++ = stack.back();
      stack.pop_back();
    }
    if (stack.empty()) current_ = kNone;
    loose_ -= part;
    count -= part;
  }
  for (; count != 0; --count) {
    *out++ = head_;
    unlink(head_);
  }
  return true;
}

// pre: there are loose blocks.
FreeBlocks::Stripe FreeBlocks::fullest() const noexcept {
  Stripe best = kNone;
  for (Stripe stripe = 0; stripe < stripes_.size(); ++stripe) {
    const Part& part = stripes_[stripe];
    if (part.condemned || part.stack.empty()) continue;
    // Cached ones count as if they were live.
    if (best == kNone || std::uint64_t{part.stack.size()} * stripes_[best].held <
                             std::uint64_t{stripes_[best].stack.size()} * part.held) {
      best = stripe;
    }
  }
  return best;
}

bool FreeBlocks::remove(Block block) noexcept {
  Node& node = nodes_[block];
  Part& part = stripes_[node.stripe];
  switch (node.state) {
    case State::cached:
      unlink(block);
      return true;
    case State::loose:
      --loose_;
      break;
    case State::aside:
      --aside_;
      break;
    case State::absent:
    case State::live:
      return false;
  }
  part.stack.erase(std::find(part.stack.begin(), part.stack.end(), block));
  if (part.stack.empty() && current_ == node.stripe) current_ = kNone;
  node.state = State::live;
  return true;
}

bool FreeBlocks::give(Block block, bool cached, End end) noexcept {
  Node& node = nodes_[block];
  if (node.state != State::live) return false;
  Part& part = stripes_[node.stripe];
  if (cached && !part.condemned) {
    link(block, end);
    return true;
  }
  node.state = part.condemned ? State::aside : State::loose;
  ++(part.condemned ? aside_ : loose_);
  part.stack.push_back(block);
  return true;
}

void FreeBlocks::forget(Block block) noexcept {
  if (nodes_[block].state != State::cached) return;
  unlink(block);
  give(block, false, End::back);
}

void FreeBlocks::link(Block block, End end) noexcept {
  Node& node = nodes_[block];
  Part& part = stripes_[node.stripe];
  node.state = State::cached;
  node.previous = end == End::back ? tail_ : kNone;
  node.next = end == End::back ? kNone : head_;
  (node.previous == kNone ? head_ : nodes_[node.previous].next) = block;
  (node.next == kNone ? tail_ : nodes_[node.next].previous) = block;
  ++part.cached;
  ++cached_;
  if (end == End::back) part.freed = ++clock_;
}

void FreeBlocks::unlink(Block block) noexcept {
  Node& node = nodes_[block];
  node.state = State::live;
  (node.previous == kNone ? head_ : nodes_[node.previous].next) = node.next;
  (node.next == kNone ? tail_ : nodes_[node.next].previous) = node.previous;
  --stripes_[node.stripe].cached;
  --cached_;
}

std::vector<FreeBlocks::Block> FreeBlocks::all() const {
  std::vector<Block> found;
  found.reserve(free());
  for (const Part& part : stripes_) {
    if (!part.condemned) found.insert(found.end(), part.stack.rbegin(), part.stack.rend());
  }
  for (Block block = head_; block != kNone; block = nodes_[block].next) found.push_back(block);
  return found;
}

bool FreeBlocks::add(Range range) {
  if (range.count == 0 || range.first >= blocks() || range.count > blocks() - range.first) {
    return false;
  }
  const Block end = range.first + range.count;
  for (Block block = range.first; block < end; ++block) {
    if (nodes_[block].state != State::absent) return false;
  }
  const Stripe last = stripe_of(end - 1);
  for (Stripe stripe = stripe_of(range.first); stripe <= last; ++stripe) {
    stripes_[stripe].ranges.reserve(stripes_[stripe].ranges.size() + 1);
  }
  for (Block first = range.first; first < end;) {
    Part& part = stripes_[stripe_of(first)];
    const Block count = std::min(end, part.first + part.size) - first;
    part.ranges.push_back({first, count});
    part.held += count;
    for (Block block = first + count; block-- > first;) {  // the first is taken first
      nodes_[block].state = State::live;
      give(block, false, End::back);
    }
    first += count;
  }
  return true;
}

std::vector<FreeBlocks::Stripe> FreeBlocks::empty() const {
  std::vector<Stripe> found;
  for (std::size_t stripe = stripes_.size(); stripe-- > 0;) {
    if (stripes_[stripe].is_empty()) found.push_back(static_cast<Stripe>(stripe));
  }
  return found;
}

std::vector<FreeBlocks::Stripe> FreeBlocks::cached_only() const {
  std::vector<Stripe> found;
  for (Stripe stripe = 0; stripe < stripes_.size(); ++stripe) {
    if (stripes_[stripe].is_cached_only()) found.push_back(stripe);
  }
  std::sort(found.begin(), found.end(),
            [this](Stripe a, Stripe b) { return stripes_[a].freed < stripes_[b].freed; });
  return found;
}

std::size_t FreeBlocks::cached_only_blocks() const noexcept {
  std::size_t sum = 0;
  for (const Part& part : stripes_) sum += part.is_cached_only() ? part.held : 0;
  return sum;
}

bool FreeBlocks::withdraw(Stripe stripe, std::vector<Range>& out) noexcept {
  Part& part = stripes_[stripe];
  if (!part.is_empty()) return false;
  for (const Block block : part.stack) nodes_[block].state = State::absent;
  (part.condemned ? aside_ : loose_) -= part.held;
  if (part.condemned) --condemned_;
  part.condemned = false;
  part.held = 0;
  part.stack.clear();
  out.clear();
  out.swap(part.ranges);
  if (current_ == stripe) current_ = kNone;
  return true;
}

void FreeBlocks::condemn(std::size_t blocks, std::size_t spare, std::size_t most) {
  std::size_t have = 0;
  std::vector<std::tuple<double, Stripe>> shares;
  for (Stripe stripe = 0; stripe < stripes_.size(); ++stripe) {
    const Part& part = stripes_[stripe];
    if (part.condemned) {
      have += part.held;
    } else if (part.held != 0 && part.live() != 0) {
      shares.emplace_back(static_cast<double>(part.live()) / part.held, stripe);
    }
  }
  std::sort(shares.begin(), shares.end());
  for (const auto& [share, stripe] : shares) {
    if (most == 0 || have >= blocks) return;
    Part& part = stripes_[stripe];
    if (have + part.held > spare) continue;
    --most;
    const std::vector<Block> cached = cached_in(stripe, part.cached);
    part.stack.reserve(part.stack.size() + cached.size());
    // Nothing fails from here on.
    for (const Block block : part.stack) nodes_[block].state = State::aside;
    loose_ -= part.stack.size();
    for (const Block block : cached) {
      unlink(block);
      nodes_[block].state = State::aside;
      part.stack.push_back(block);
    }
    aside_ += part.stack.size();
    have += part.held;
    part.condemned = true;
    ++condemned_;
    if (current_ == stripe) current_ = kNone;
  }
}

std::vector<FreeBlocks::Block> FreeBlocks::pardon() {
  std::vector<Block> freed;
  freed.reserve(aside_);
  for (Part& part : stripes_) {
    if (!part.condemned) continue;
    part.condemned = false;
    for (const Block block : part.stack) nodes_[block].state = State::live;
    freed.insert(freed.end(), part.stack.begin(), part.stack.end());
    part.stack.clear();
  }
  aside_ = condemned_ = 0;
  return freed;
}

std::vector<FreeBlocks::Block> FreeBlocks::cached_in(Stripe stripe, std::size_t most) const {
  std::vector<Block> found;
  const Part& part = stripes_[stripe];
  found.reserve(std::min<std::size_t>(most, part.cached));
  for (const Range& range : part.ranges) {
    for (Block block = range.first; block < range.first + range.count; ++block) {
      if (found.size() == found.capacity()) return found;
      if (nodes_[block].state == State::cached) found.push_back(block);
    }
  }
  return found;
}

}  // namespace kvcached::adapters
