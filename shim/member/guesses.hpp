// Buffers that are elastic by a rule alone: nobody has claimed them yet, and perhaps nobody will.
// Whoever launches work first has them backed whole, so that a wrong guess is harmless.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "policy/clock.hpp"
#include "policy/units.hpp"
#include "shim/cache/buffer.hpp"
#include "shim/member/member.hpp"

namespace kvcached::member {

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

  // Backs all of them; waits for another thread that does. False after five seconds: the GPU has no
  // memory for one of them, in spite of the pool's word. Makes driver calls.
  bool back_all() noexcept;

 private:
  struct Guess {
    Member* member;
    std::shared_ptr<cache::Buffer> buffer;
    Pages kept;
  };
  bool back(Guess& guess) noexcept;
  void drop(const Guess& guess) noexcept;

  std::atomic<std::uint32_t>& open_;
  const Clock& clock_;
  std::mutex mutex_;  // held while they are backed
  std::vector<Guess> guesses_;
};

}  // namespace kvcached::member
