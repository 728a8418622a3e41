// The engines of a chaos run, and what is done to them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bench/measure/child.hpp"
#include "bench/measure/numbers.hpp"
#include "tests/stress/board.hpp"

namespace kvcached::chaos {

struct Options {
  double seconds = 20;
  std::size_t engines = 16;
  std::uint64_t seed = 0;
  bool real = false, verbose = false;
  std::string build;
};

// Every failure is an exception that says what went wrong.
class Players {
 public:
  Players(const Options& options, std::mt19937_64& random);
  ~Players();
  Players(const Players&) = delete;
  Players& operator=(const Players&) = delete;

  void fill();  // every seat, at the start
  void kill_one();
  void stop_one(double for_seconds);
  void fork_one();
  void end_one();
  void toggle_faults();

  // Continues whoever was stopped long enough, takes note of the ends, fills empty seats.
  void look_after(double still_seconds);
  // Ends all, half of them by a kill.
  void end_all(double patience_s);
  void start_onlooker();

  std::uint64_t stopped() const { return stopped_; }
  const std::string& pool_folder() const { return pool_.path(); }
  void tell() const;

 private:
  struct Player {
    std::unique_ptr<bench::Child> child;  // none: the seat is empty
    std::string log;
    bool killed = false, ending = false, stopped = false;
    std::uint64_t faults = 0, stops = 0;  // of the board, when it began
    std::uint64_t steps = 0;
    bench::Clock::time_point stepped;  // when `steps` was new
    bench::Clock::time_point until;    // stopped: to be continued; empty: to be filled
  };

  unsigned below(unsigned n) { return static_cast<unsigned>(random_() % n); }
  // A seat at random whose player runs and is not at its end; none: null.
  Player* any();
  void start(std::size_t seat, std::uint64_t seed);
  bench::Changes settings(std::size_t seat);
  void resume(Player& player);
  void note_end(std::size_t seat, int status);
  std::string last_words(const Player& player) const;

  const Options options_;
  std::mt19937_64& random_;
  bench::Folder pool_, gpu_, files_;
  Board* board_;
  std::vector<Player> players_;
  std::uint64_t stopped_ = 0;  // now
  std::uint64_t started_ = 0, kills_ = 0, stops_ = 0, forks_ = 0, ends_ = 0, faults_ = 0;
  std::map<int, std::uint64_t> gave_up_;  // by exit code
};

}  // namespace kvcached::chaos
