#include "shim/member/room.hpp"

#include <time.h>

#include <utility>

#include "shim/log.hpp"

namespace kvcached::member {

namespace {

constexpr timespec kAgain{0, 5'000'000};

enum class Ask : std::uint8_t { there, later, never };

// A claim for what is free in the pool and as much more as the GPU lacks: met, others have let go
// of the latter. The pool's free pages may be gone from the GPU: it learns of plain memory a little
// late.
Ask ask(Member& member, driver::Driver& driver, driver::DeviceId device, Bytes size) {
  driver::MemoryInfo gpu;
  if (driver.memory_info(device, gpu) != driver::Status::ok) return Ask::never;
  if (gpu.free >= size) return Ask::there;
  const Pages missing = pages_up(size.minus_clamped(gpu.free));
  const ledger::Snapshot pool = member.ledger().snapshot();
  const Pages own = member.ledger().charged();
  const Pages claim = pool.free + missing;
  if (pool.charged.minus_clamped(own) + pool.limbo < missing || own + claim > member.limit())
    return Ask::never;
  if (member.charge(claim, claim)) member.uncharge(claim);
  return Ask::later;
}

}  // namespace

bool wait_for_others(Member& member, driver::Driver& driver, driver::DeviceId device, Bytes size,
                     Instant deadline, const Clock& clock) noexcept {
  Ask answer = Ask::never;
  bool told = false;
  member.begin_wish();
  try {
    while ((answer = ask(member, driver, device, size)) == Ask::later && clock.now() < deadline) {
      if (!std::exchange(told, true))
        inform("a plain allocation of {} MiB waits for memory that others in the pool hold",
               size.value >> 20U);
      nanosleep(&kAgain, nullptr);
    }
  } catch (...) {
    answer = Ask::never;  // no memory for a list
  }
  member.drop_wish();
  return answer == Ask::there;
}

}  // namespace kvcached::member
