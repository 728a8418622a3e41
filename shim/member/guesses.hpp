// Buffers that are elastic by a rule alone: nobody has claimed them yet, and perhaps nobody will.
// Whoever launches work first has them backed whole, so that a wrong guess is harmless.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "policy/clock.hpp"
#include "policy/units.hpp"
#include "shim/cache/buffer.hpp"
#include "shim/member/member.hpp"

namespace kvcached::member {

// What work is about to use.
struct Touch {
  driver::Address at = 0;
  Bytes bytes;  // none: all of the buffer that holds the address
};

// Thread-safe.
class Guesses {
 public:
  // `open` holds how many there are; others read it without asking here.
  Guesses(std::atomic<std::uint32_t>& open, const Clock& clock) noexcept
      : open_(open), clock_(clock) {}

  // Notes a buffer for which `kept` pages are charged to `member`: they are what it will be backed
  // from, since the engine was told that it has this memory. False: no memory to note it.
  bool add(Member& member, std::shared_ptr<cache::Buffer> buffer, Pages kept) noexcept;

  // The buffer is claimed, whole or freed: what was kept for it goes back. Others are ignored.
  void settle(const std::shared_ptr<cache::Buffer>& buffer) noexcept;

  // What is kept for them all: memory that the engine was told it has, and that is not taken yet.
  Pages kept(const Member& member) noexcept;

  // All of them lie within: what is not is none of them. Takes no lock.
  std::pair<driver::Address, driver::Address> range() const noexcept {
    return {first_.load(std::memory_order_acquire), end_.load(std::memory_order_acquire)};
  }

  // One attempt to back a buffer whole, from what is kept for it where it is one of them.
  cache::Result back_whole(const std::shared_ptr<cache::Buffer>& buffer) noexcept;

  // Backs all of them that nobody is claiming; waits for another thread that does. False after five
  // seconds: the GPU has no memory for one of them, in spite of the pool's word. Makes driver
  // calls.
  bool back_all() noexcept;

  // The same for what is touched of them: whole buffers and parts.
  bool back(std::span<const Touch> touched) noexcept;

 private:
  struct Guess {
    Member* member;
    std::shared_ptr<cache::Buffer> buffer;
    Pages kept;
    bool lost = false;  // its context is: nothing will use it
  };
  bool holds(const Guess& guess, const Touch& touch) const noexcept;
  std::vector<Guess>::iterator find(const std::shared_ptr<cache::Buffer>& buffer) noexcept;
  // By `attempt`, from what is kept for it.
  template <class F>
  cache::Result once(Guess& guess, F attempt) noexcept;
  // The same again and again while there is no memory.
  template <class F>
  bool back(Guess& guess, F attempt) noexcept;
  void drop(const Guess& guess) noexcept;
  // Unless it is a guess still, or somebody is claiming it; a lost one always.
  void drop_settled(std::size_t i) noexcept;

  std::atomic<std::uint32_t>& open_;
  const Clock& clock_;
  std::mutex mutex_;  // held while they are backed
  std::vector<Guess> guesses_;
  // Grow only.
  std::atomic<driver::Address> first_{~driver::Address{0}};
  std::atomic<driver::Address> end_{0};
};

}  // namespace kvcached::member
