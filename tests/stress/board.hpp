// What the players of a chaos run tell its driver, and the driver them: a file that all map.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace kvcached::chaos {

inline constexpr std::size_t kSeats = 64;
inline constexpr std::size_t kComplaint = 256;

// How a player ends that was not killed.
enum Exit : int {
  kDone = 0,      // was told to
  kWrong = 9,     // found something wrong: see its complaint
  kNoCuda = 10,   // the driver refused what it needs to begin
  kNoPool = 11,   // the pool is out of reach: it would run on plain memory
  kNoCache = 12,  // no cache: the driver refused
  kLost = 13,     // the library gave its cache up after what the driver refused
};

// One writer: whoever plays there now. The driver sums up.
struct Seat {
  std::atomic<std::uint64_t> steps;
  std::atomic<std::uint64_t> checked;   // blocks read back
  std::atomic<std::uint64_t> acquired;  // blocks
  std::atomic<std::uint64_t> fresh;     // of them, with nothing but zeros
  std::atomic<std::uint64_t> short_of;  // acquisitions that got less than asked
  std::atomic<std::uint64_t> forks;
  std::atomic<std::int64_t>
      longest_over_us;  // beyond what an acquisition might take, stops left out
  std::atomic<std::int64_t> longest_hungry_us;  // below its minimum, though it wanted more
  char complaint[kComplaint];
};

struct Board {
  std::atomic<std::uint64_t> faults;  // odd: the driver's calls fail now and then
  std::atomic<std::uint64_t> stops;   // begun
  // Time in which somebody was stopped: up to `stopped_since`, and from then on if it is not 0.
  std::atomic<std::int64_t> stopped_us;
  std::atomic<std::int64_t> stopped_since;
  Seat seats[kSeats];
};

inline std::int64_t now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

inline std::int64_t stopped_us(const Board& board) {
  const std::int64_t since = board.stopped_since;
  return board.stopped_us + (since != 0 ? now_us() - since : 0);
}

inline Board* map_board(const std::string& file) {
  const int descriptor = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) return nullptr;
  void* at = MAP_FAILED;
  if (::ftruncate(descriptor, sizeof(Board)) == 0) {
    at = ::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  }
  ::close(descriptor);
  return at == MAP_FAILED ? nullptr : static_cast<Board*>(at);
}

}  // namespace kvcached::chaos
