// The free blocks of a KV cache whose memory comes and goes in stripes: which one goes next.
//
//   first   loose ones, whose contents nobody knows, from the fullest stripe: the emptier run dry
//   then    cached ones, which the engine's prefix cache knows, the least recently freed first
//
// A block that has memory is live (the engine's), loose, cached, or aside: free, but of a condemned
// stripe, which gives no blocks any more and can be withdrawn once the last live one is freed.
//
// Numbers only; not thread-safe. An engine's scheduler calls this for every block, so a call costs
// some nanoseconds a block and allocates nothing, but for what hands out a vector.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvcached::adapters {

class FreeBlocks {
 public:
  using Block = std::uint32_t;
  using Stripe = std::uint32_t;
  struct Range {
    Block first;
    Block count;
    bool operator==(const Range&) const = default;
  };
  enum class End { front, back };

  // `sizes`: the blocks of each stripe, in order. None has memory. Throws std::bad_alloc.
  explicit FreeBlocks(std::span<const Block> sizes);

  std::size_t blocks() const noexcept { return nodes_.size(); }
  std::size_t stripes() const noexcept { return stripes_.size(); }
  std::size_t free() const noexcept { return loose_ + cached_; }
  std::size_t loose() const noexcept { return loose_; }
  std::size_t aside() const noexcept { return aside_; }
  std::size_t condemned() const noexcept { return condemned_; }

  // All or none: false when there are fewer. `out` has room for `count`.
  bool take(std::size_t count, Block* out) noexcept;
  // This one block out of the free ones. False when it is not one of them.
  bool remove(Block block) noexcept;
  // A live block back. `cached`: the prefix cache knows it; `end`: at which end of the cached ones.
  // False when it is not live.
  bool give(Block block, bool cached, End end) noexcept;
  // give() comes soon: of many blocks, what is known of each is fetched at once, not one by one.
  void will_give(Block block) const noexcept { __builtin_prefetch(&nodes_[block], 1); }
  // The prefix cache does not know the block any more. Nothing, unless it is a cached one.
  void forget(Block block) noexcept;
  // Loose ones, then cached ones in their order.
  std::vector<Block> all() const;

  // These blocks have memory now and are free. False when there are none of them, or some had it
  // already.
  bool add(Range range);
  // Held stripes with neither live nor cached blocks. Later ones are larger and come first: the
  // small ones serve whoever comes next.
  std::vector<Stripe> empty() const;
  // Stripes with cached blocks but no live ones: the one whose last block was freed first in front.
  std::vector<Stripe> cached_only() const;
  // How many blocks those have.
  std::size_t cached_only_blocks() const noexcept;
  // Takes an empty stripe away. False when it is none; else `out` has what was added.
  bool withdraw(Stripe stripe, std::vector<Range>& out) noexcept;
  // Condemns the emptiest stripes that have live blocks, until condemned ones have `blocks` or
  // `most` were added; none by which they would have more than `spare`.
  void condemn(std::size_t blocks, std::size_t spare, std::size_t most);
  // Nothing is condemned any more. The blocks that were aside are live until they are given back.
  std::vector<Block> pardon();

  bool is_condemned(Stripe stripe) const noexcept { return stripes_[stripe].condemned; }
  Stripe stripe_of(Block block) const noexcept { return nodes_[block].stripe; }
  Block held(Stripe stripe) const noexcept { return stripes_[stripe].held; }
  const std::vector<Range>& ranges(Stripe stripe) const noexcept { return stripes_[stripe].ranges; }
  // Of this stripe: the loose ones or, where it is condemned, those aside.
  const std::vector<Block>& stack(Stripe stripe) const noexcept { return stripes_[stripe].stack; }
  // Of this stripe, at most so many.
  std::vector<Block> cached_in(Stripe stripe, std::size_t most) const;

 private:
  enum class State : std::uint8_t { absent, live, loose, cached, aside };
  struct Node {
    Block previous, next;  // while cached
    Stripe stripe;
    State state;
  };
  struct Part {
    std::vector<Block> stack;
    std::vector<Range> ranges;
    Block first = 0, size = 0;
    Block held = 0, cached = 0;
    std::uint64_t freed = 0;  // when a cached one was last freed
    bool condemned = false;

    std::size_t live() const noexcept { return held - cached - stack.size(); }
    bool is_cached_only() const noexcept { return cached != 0 && live() == 0; }
    bool is_empty() const noexcept { return held != 0 && cached == 0 && live() == 0; }
  };

  Stripe fullest() const noexcept;
  void link(Block block, End end) noexcept;
  void unlink(Block block) noexcept;

  std::vector<Node> nodes_;
  std::vector<Part> stripes_;
  Block head_, tail_;  // the cached ones
  Stripe current_;     // whose loose ones are being taken, until it has none
  std::size_t loose_ = 0, cached_ = 0, aside_ = 0, condemned_ = 0;
  std::uint64_t clock_ = 0;
};

}  // namespace kvcached::adapters
