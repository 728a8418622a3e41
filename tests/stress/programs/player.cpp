// link: -lcuda
// An engine of a chaos run: takes blocks and gives them back at random, and knows what must be in
// each. It ends when its standard input does; SIGUSR1 makes it fork.
//
//   player BOARD SEAT SEED
//
// With seed 0 it only looks on: a member that has nothing, and reaps the dead.
#include <cuda.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "shim/include/kvcached.h"
#include "tests/stress/board.hpp"

namespace {

using namespace kvcached::chaos;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::uint64_t kBlock = 64 << 10;
constexpr std::uint64_t kBlocks = 4096;
constexpr std::size_t kTensors = 2;
constexpr int kWaits[] = {0, 0, 40, 400};  // ms
constexpr std::uint64_t kExtent = 2 << 20;
constexpr std::uint64_t kStripe = kTensors * kExtent;

// Beyond the time that it was given, a call may take so long. The time in which somebody was
// stopped does not count: perhaps with a lock of the simulated driver in his hands.
constexpr std::int64_t kOver = 1'000'000;
// A minimum may be with the dead for 5 s, and behind a stopped holder of a lock.
constexpr std::int64_t kHungry = 13'000'000;

volatile sig_atomic_t fork_wanted = 0;
volatile sig_atomic_t continued = 0;

std::int64_t microseconds_since(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start).count();
}

void raise_to(std::atomic<std::int64_t>& most, std::int64_t value) {
  if (value > most.load()) most = value;
}

// ---- what is in a block ----

// Not 0: memory that nobody wrote is.
std::uint64_t tag_of(std::uint64_t seed) {
  const auto pid = static_cast<std::uint64_t>(::getpid());
  return ((seed * 0x9e3779b97f4a7c15 ^ pid) & 0xffffffff) | 1U;
}

struct Pattern {
  std::uint64_t tag;  // of this process, in the upper half of each word
  std::uint64_t word(std::uint64_t block, std::size_t tensor, std::uint64_t version,
                     std::uint64_t at) const {
    const std::uint64_t mixed =
        (block * kTensors + tensor + 1) * 0x9e3779b97f4a7c15 + version * 0xbf58476d1ce4e5b9 + at;
    return tag << 32 | ((mixed ^ mixed >> 29) & 0xffffffff);
  }
};

class Player {
 public:
  Player(Board& board, Seat& seat, std::uint64_t seed)
      : board_(board),
        seat_(seat),
        random_(seed),
        pattern_{tag_of(seed)},
        versions_(kBlocks),
        host_(kBlock / 8),
        greedy_(chance(20)) {}

  void start() {
    CUcontext context = nullptr;
    if (cuInit(0) != CUDA_SUCCESS || cuDevicePrimaryCtxRetain(&context, 0) != CUDA_SUCCESS ||
        cuCtxSetCurrent(context) != CUDA_SUCCESS) {
      std::_Exit(kNoCuda);
    }
    for (std::size_t i = 0; i < kTensors; ++i) {
      CUdeviceptr at = 0;
      kvcached_tag_push("kv");
      const CUresult result = cuMemAlloc(&at, kBlock * kBlocks);
      kvcached_tag_pop();
      if (result != CUDA_SUCCESS) std::_Exit(kNoCuda);
      segments_.push_back({at, kBlock, kBlock});
    }
    kvcached_model model{};
    model.struct_size = sizeof model;
    model.name = "player";
    model.layers = model.kv_heads = model.head_dim = model.bytes_per_element = 1;
    model.max_seq_len = model.block_tokens = 1;
    kvcached_model_info info{};
    info.struct_size = sizeof info;
    if (kvcached_model_register(&model, &info) != KVCACHED_OK) std::_Exit(kNoPool);
    minimum_ = info.guaranteed_tokens * info.bytes_per_token;
    kvcached_geometry geometry{};
    geometry.struct_size = sizeof geometry;
    geometry.segments = segments_.data();
    geometry.segment_count = segments_.size();
    geometry.blocks = kBlocks;
    geometry.stripe_bytes = kExtent;
    const int result = kvcached_cache_create(&geometry, &cache_);
    if (result == KVCACHED_NOT_ELASTIC || result == KVCACHED_OFF) std::_Exit(kNoPool);
    if (result != KVCACHED_OK) std::_Exit(kNoCache);
  }

  void step() {
    ++seat_.steps;
    if (fork_wanted != 0) fork_now();
    if (const std::uint64_t asked = kvcached_cache_pressure(cache_);
        asked != 0 && !greedy_ && chance(90)) {
      release(std::min<std::uint64_t>(asked, held_.size()));
    }
    const unsigned dice = below(100);
    if (greedy_) {
      acquire(1 + below(64), 0);
    } else if (hungry_ || dice < 40) {
      acquire(1 + below(128), hungry_ ? 300 : kWaits[below(4)]);
    } else if (dice < 65) {
      release(below(static_cast<unsigned>(held_.size()) + 1));
    } else if (dice < 70) {
      if (kvcached_cache_expect(cache_, below(256)) == KVCACHED_LOST) std::_Exit(kLost);
    }
    for (int i = 0; i < 4 && !held_.empty(); ++i) check(held_[below_size(held_)]);
    const bool idles = !hungry_ && chance(1);
    std::this_thread::sleep_for(milliseconds(idles ? 1500 : below(8)));
  }

  void end() {
    for (const std::uint64_t block : held_) check(block);
    release(held_.size());
    kvcached_cache_destroy(cache_);
    for (const kvcached_segment& segment : segments_) {
      if (cuMemFree(segment.base) != CUDA_SUCCESS) wrong("cuMemFree failed");
    }
  }

 private:
  unsigned below(unsigned n) { return static_cast<unsigned>(random_() % n); }
  std::size_t below_size(const std::vector<std::uint64_t>& v) { return random_() % v.size(); }
  bool chance(unsigned percent) { return below(100) < percent; }

  [[noreturn]] __attribute__((format(printf, 2, 3))) void wrong(const char* format, ...) {
    va_list values;
    va_start(values, format);
    std::vsnprintf(seat_.complaint, kComplaint, format, values);
    va_end(values);
    std::_Exit(kWrong);
  }

  void acquire(std::uint64_t blocks, std::int64_t wait_ms) {
    if (held_.size() + blocks > kBlocks) return;
    std::vector<kvcached_range> ranges(256);
    std::size_t count = ranges.size();
    const std::int64_t stopped = stopped_us(board_);
    const sig_atomic_t own_stops = continued;
    const auto start = Clock::now();
    const int result = kvcached_cache_acquire(cache_, blocks, 0, wait_ms, ranges.data(), &count);
    const std::int64_t over =
        microseconds_since(start) - wait_ms * 1000 - (stopped_us(board_) - stopped);
    if (result == KVCACHED_LOST) std::_Exit(kLost);
    if (result != KVCACHED_OK && result != KVCACHED_SHORT) wrong("acquire: %d", result);
    if (own_stops == continued) {
      raise_to(seat_.longest_over_us, over);
      if (over > kOver) {
        wrong("an acquisition that might wait %ld ms took %ld ms more, stops left out",
              static_cast<long>(wait_ms), static_cast<long>(over / 1000));
      }
    }
    for (std::size_t i = 0; i < count; ++i) {
      for (std::uint64_t b = ranges[i].first; b < ranges[i].first + ranges[i].count; ++b) take(b);
    }
    seat_.short_of += result == KVCACHED_SHORT;
    watch_minimum(result == KVCACHED_SHORT);
  }

  // A block is this process's from here on. What it held before is nothing, or our own.
  void take(std::uint64_t block) {
    if (block >= kBlocks || versions_[block] % 2 != 0) {
      wrong("block %lu was given twice, or does not exist", static_cast<unsigned long>(block));
    }
    bool zero = true;
    for (std::size_t tensor = 0; tensor < kTensors; ++tensor) {
      read(block, tensor);
      for (std::size_t i = 0; i < host_.size(); ++i) {
        zero = zero && host_[i] == 0;
        if (host_[i] != 0 && host_[i] >> 32 != pattern_.tag) {
          wrong("new block %lu of tensor %zu holds %016lx at word %zu; the own tag is %08lx",
                static_cast<unsigned long>(block), tensor, static_cast<unsigned long>(host_[i]), i,
                static_cast<unsigned long>(pattern_.tag));
        }
      }
    }
    seat_.fresh += zero;
    ++seat_.acquired;
    ++versions_[block];  // odd: held
    for (std::size_t tensor = 0; tensor < kTensors; ++tensor) {
      for (std::size_t i = 0; i < host_.size(); ++i) {
        host_[i] = pattern_.word(block, tensor, versions_[block], i);
      }
      const CUresult result = cuMemcpyHtoD(address(block, tensor), host_.data(), kBlock);
      if (result != CUDA_SUCCESS) wrong("writing a block failed: %d", static_cast<int>(result));
    }
    held_.push_back(block);
  }

  void check(std::uint64_t block) {
    for (std::size_t tensor = 0; tensor < kTensors; ++tensor) {
      read(block, tensor);
      for (std::size_t i = 0; i < host_.size(); ++i) {
        const std::uint64_t right = pattern_.word(block, tensor, versions_[block], i);
        if (host_[i] == right) continue;
        wrong("block %lu of tensor %zu holds %016lx at word %zu instead of %016lx",
              static_cast<unsigned long>(block), tensor, static_cast<unsigned long>(host_[i]), i,
              static_cast<unsigned long>(right));
      }
    }
    ++seat_.checked;
  }

  void release(std::size_t blocks) {
    if (blocks == 0) return;
    std::vector<kvcached_range> ranges;
    for (std::size_t i = 0; i < blocks; ++i) {
      std::swap(held_[below_size(held_)], held_.back());
      const std::uint64_t block = held_.back();
      if (i % 16 == 0) check(block);
      ++versions_[block];
      ranges.push_back({block, 1});
      held_.pop_back();
    }
    const int result = kvcached_cache_release(cache_, ranges.data(), ranges.size());
    if (result == KVCACHED_LOST) std::_Exit(kLost);
    if (result != KVCACHED_OK) wrong("release: %d", result);
  }

  // Whoever has less than its minimum and wants more has to get it.
  void watch_minimum(bool was_short) {
    kvcached_cache_info info{};
    info.struct_size = sizeof info;
    if (kvcached_cache_describe(cache_, &info) != KVCACHED_OK) std::_Exit(kLost);
    const bool below_minimum = was_short && info.backed_bytes + kStripe <= minimum_;
    const std::uint64_t faults = board_.faults;
    if (!below_minimum || (hungry_ && faults != faults_) || faults % 2 != 0) {
      if (hungry_) raise_to(seat_.longest_hungry_us, microseconds_since(hungry_since_));
      hungry_ = false;
    } else if (!hungry_) {
      hungry_ = true;
      hungry_since_ = Clock::now();
      faults_ = faults;
      hungry_stops_ = continued;
    } else if (hungry_stops_ != continued) {
      hungry_ = false;
    } else if (const std::int64_t us = microseconds_since(hungry_since_); us > kHungry) {
      wrong("has %lu MiB, less than its minimum of %lu MiB, and got no more for %ld ms",
            static_cast<unsigned long>(info.backed_bytes >> 20),
            static_cast<unsigned long>(minimum_ >> 20), static_cast<long>(us / 1000));
    }
  }

  // The child is no member of anything; it may live on for a while, also without its parent.
  void fork_now() {
    fork_wanted = 0;
    const unsigned lives_ms = chance(50) ? 0 : below(600);
    const pid_t child = ::fork();
    if (child < 0) wrong("fork failed");
    if (child != 0) {
      ++seat_.forks;
      return;
    }
    std::this_thread::sleep_for(milliseconds(lives_ms));
    const kvcached_range range{0, 1};
    if (kvcached_cache_release(cache_, &range, 1) == KVCACHED_OK) {
      std::snprintf(seat_.complaint, kComplaint, "a forked child could release a block");
    }
    std::_Exit(0);
  }

  void read(std::uint64_t block, std::size_t tensor) {
    const CUresult result = cuMemcpyDtoH(host_.data(), address(block, tensor), kBlock);
    if (result != CUDA_SUCCESS) wrong("reading a block failed: %d", static_cast<int>(result));
  }
  CUdeviceptr address(std::uint64_t block, std::size_t tensor) const {
    return segments_[tensor].base + block * kBlock;
  }

  Board& board_;
  Seat& seat_;
  std::mt19937_64 random_;
  const Pattern pattern_;
  std::vector<std::uint64_t> versions_;  // of each block's contents; odd: held
  std::vector<std::uint64_t> host_;
  std::vector<std::uint64_t> held_;
  std::vector<kvcached_segment> segments_;
  kvcached_cache* cache_ = nullptr;
  std::uint64_t minimum_ = 0;
  const bool greedy_;  // takes what there is and keeps it, whoever waits
  bool hungry_ = false;
  Clock::time_point hungry_since_;
  std::uint64_t faults_ = 0;
  sig_atomic_t hungry_stops_ = 0;
};

bool input_ended() {
  pollfd in{0, POLLIN, 0};
  return ::poll(&in, 1, 0) > 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  Board* const board = map_board(argv[1]);
  const std::size_t seat = std::strtoul(argv[2], nullptr, 10);
  if (board == nullptr || seat >= kSeats) return 2;
  ::signal(SIGCHLD, SIG_IGN);
  ::signal(SIGUSR1, [](int) { fork_wanted = 1; });
  ::signal(SIGCONT, [](int) { continued = continued + 1; });
  const bool plays = std::strtoull(argv[3], nullptr, 10) != 0;
  Player player(*board, board->seats[seat], std::strtoull(argv[3], nullptr, 10));
  player.start();
  while (!input_ended()) {
    if (plays) {
      player.step();
    } else {
      std::this_thread::sleep_for(milliseconds(20));
    }
  }
  player.end();
  // A leak checker stops all threads of a process that ends, and the simulated driver's do not heed
  // it.
  std::_Exit(kDone);
}
