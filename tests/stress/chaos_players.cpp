#include "tests/stress/chaos_players.hpp"

#include <csignal>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <thread>

namespace kvcached::chaos {
namespace {

using bench::Clock;
using bench::seconds;

Clock::time_point in(double s) {
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
}

std::string mib(std::uint64_t n) { return std::to_string(n) + "MiB"; }

}  // namespace

Players::Players(const Options& options, std::mt19937_64& random)
    : options_(options),
      random_(random),
      board_(map_board(files_.path() + "/board")),
      players_(kSeats) {
  if (board_ == nullptr) throw std::runtime_error(files_.path() + ": no board there");
  std::ofstream(files_.path() + "/faults").flush();
}

Players::~Players() {
  for (Player& player : players_) player.child.reset();
}

void Players::fill() {
  for (std::size_t seat = 0; seat < options_.engines; ++seat) start(seat, random_() | 1U);
}

// Newcomers bring other limits each time. A quarter of the pool is promised at most.
bench::Changes Players::settings(std::size_t seat) {
  const std::uint64_t share = 24;
  const std::uint64_t pool = share * options_.engines;
  bench::Changes out{
      {"LD_PRELOAD", options_.build + "/libkvcached.so"},
      {"KVCACHED_DIR", pool_.path()},
      {"KVCACHED_POOL", mib(pool)},
      {"KVCACHED_NAME", "player-" + std::to_string(seat) + "-" + std::to_string(started_)},
      {"KVCACHED_MIN",
       below(2) == 0 ? "0" : mib(share / 4 + below(static_cast<unsigned>(share)) / 2)},
      {"KVCACHED_MAX",
       below(3) == 0 ? mib(2 * share + below(static_cast<unsigned>(pool / 2))) : "100%"},
      {"KVCACHED_WEIGHT", std::to_string(1 + below(300))},
      {"KVCACHED_WARM", below(3) == 0 ? mib(below(64)) : ""},
      {"KVCACHED_LOG_FILE", files_.path() + "/log-" + std::to_string(seat)}};
  if (options_.real) return out;
  out["LD_LIBRARY_PATH"] = options_.build + "/sim";
  out["SIM_GPU_DIR"] = gpu_.path();
  out["SIM_GPU_MEMORY"] = "4GiB";
  out["SIM_GPU_FAULTS"] = files_.path() + "/faults";
  return out;
}

void Players::start(std::size_t seat, std::uint64_t seed) {
  Player& player = players_[seat];
  ++started_;
  player = Player{};
  player.log = files_.path() + "/log-" + std::to_string(seat);
  player.faults = board_->faults;
  // Who is stopped already counts as well.
  player.stops = board_->stops - stopped_;
  player.steps = board_->seats[seat].steps;
  player.stepped = Clock::now();
  std::ofstream(player.log).flush();
  player.child = std::make_unique<bench::Child>(
      "player " + std::to_string(seat),
      std::vector<std::string>{options_.build + "/tests/programs/player", files_.path() + "/board",
                               std::to_string(seat), std::to_string(seed)},
      settings(seat));
}

Players::Player* Players::any() {
  for (int i = 0; i < 100; ++i) {
    Player& player = players_[random_() % options_.engines];
    if (player.child && !player.killed && !player.ending && !player.stopped) return &player;
  }
  return nullptr;
}

void Players::kill_one() {
  Player* const player = any();
  if (player == nullptr) return;
  player->killed = true;
  ::kill(player->child->pid(), SIGKILL);
  ++kills_;
}

void Players::stop_one(double for_seconds) {
  Player* const player = any();
  if (player == nullptr) return;
  ++board_->stops;
  if (stopped_++ == 0) board_->stopped_since = now_us();
  player->stopped = true;
  player->until = in(for_seconds);
  ::kill(player->child->pid(), SIGSTOP);
  ++stops_;
}

void Players::resume(Player& player) {
  player.stopped = false;
  player.stepped = Clock::now();
  ::kill(player.child->pid(), SIGCONT);
  if (--stopped_ != 0) return;
  board_->stopped_us += now_us() - board_->stopped_since;
  board_->stopped_since = 0;
}

void Players::fork_one() {
  Player* const player = any();
  // Before its first step it may not have said yet what the signal means.
  if (player == nullptr || player->steps == 0) return;
  ::kill(player->child->pid(), SIGUSR1);
  ++forks_;
}

void Players::end_one() {
  Player* const player = any();
  if (player == nullptr) return;
  player->ending = true;
  player->child->end_input();
  ++ends_;
}

void Players::toggle_faults() {
  if (options_.real) return;
  const bool on = ++board_->faults % 2 != 0;
  std::ofstream file(files_.path() + "/faults");
  if (!on) return;
  ++faults_;
  // Each process counts its own calls. Rare enough that a newcomer can begin, mostly.
  const auto line = [&](const char* call, unsigned every, int error) {
    file << call << " every=" << every + below(every) << " error=" << error << '\n';
  };
  line("cuMemCreate", 30, 2);
  line("cuMemMap", 600, 999);
  line("cuMemSetAccess", 600, 304);
  line("cuMemUnmap", 600, 999);
  line("cuMemRelease", 300, 999);
}

void Players::look_after(double still_seconds) {
  for (std::size_t seat = 0; seat < options_.engines; ++seat) {
    Player& player = players_[seat];
    if (!player.child) {
      if (Clock::now() >= player.until) start(seat, random_() | 1U);
      continue;
    }
    if (const auto status = player.child->ended()) {
      if (player.stopped) resume(player);
      note_end(seat, *status);
      player.child.reset();
      player.until = in(0.001 * below(400));
      continue;
    }
    if (player.stopped && Clock::now() >= player.until) resume(player);
    const std::uint64_t steps = board_->seats[seat].steps;
    if (steps != player.steps || player.stopped) {
      player.steps = steps;
      player.stepped = Clock::now();
    } else if (seconds(player.stepped) > still_seconds) {
      throw std::runtime_error("player " + std::to_string(seat) + " stands still" +
                               last_words(player));
    }
  }
}

void Players::note_end(std::size_t seat, int status) {
  const Player& player = players_[seat];
  const std::string who = "player " + std::to_string(seat);
  if (status == kWrong)
    throw std::runtime_error(who + ": " + board_->seats[seat].complaint + last_words(player));
  if (player.killed ? status == -SIGKILL : player.ending && status == kDone) return;
  // A kill may come too late.
  if (player.killed && status == kDone && player.ending) return;
  // What it cannot do without was refused: by the driver on our behalf, or for a stopped process.
  const bool refused = board_->faults != player.faults || player.faults % 2 != 0;
  const bool blocked = board_->stops != player.stops;
  const bool expected = (status == kNoCuda || status == kNoCache || status == kLost) ? refused
                        : status == kNoPool ? refused || blocked
                                            : false;
  if (!expected) {
    throw std::runtime_error(who + " ended by itself: " +
                             (status < 0 ? "signal " + std::to_string(-status)
                                         : "exit status " + std::to_string(status)) +
                             last_words(player));
  }
  ++gave_up_[status];
  if (options_.verbose)
    std::printf("%s gave up with status %d%s\n", who.c_str(), status, last_words(player).c_str());
}

std::string Players::last_words(const Player& player) const {
  std::string out;
  std::ifstream log(player.log);
  std::vector<std::string> lines;
  for (std::string line; std::getline(log, line);) lines.push_back(line);
  const std::size_t first = lines.size() > 15 ? lines.size() - 15 : 0;
  for (std::size_t i = first; i < lines.size(); ++i) out += "\n    " + lines[i];
  return out;
}

void Players::end_all(double patience_s) {
  if (board_->faults % 2 != 0) toggle_faults();
  bool kill = false;
  for (Player& player : players_) {
    if (!player.child) continue;
    if (player.stopped) resume(player);
    if (kill && player.steps != 0) {
      player.killed = true;
      ::kill(player.child->pid(), SIGKILL);
    }
    kill = !kill;
    player.ending = true;
    player.child->end_input();
  }
  const auto start = Clock::now();
  for (std::size_t seat = 0; seat < players_.size(); ++seat) {
    Player& player = players_[seat];
    while (player.child) {
      if (const auto status = player.child->ended()) {
        note_end(seat, *status);
        player.child.reset();
      } else if (seconds(start) > patience_s) {
        throw std::runtime_error("player " + std::to_string(seat) + " does not end" +
                                 last_words(player));
      } else {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    }
  }
  for (const Seat& seat : board_->seats) {
    if (seat.complaint[0] != '\0') throw std::runtime_error(seat.complaint);
  }
}

void Players::start_onlooker() { start(options_.engines, 0); }

void Players::tell() const {
  std::uint64_t steps = 0, checked = 0, acquired = 0, fresh = 0, short_of = 0, forks = 0;
  std::int64_t over = 0, hungry = 0;
  for (const Seat& seat : board_->seats) {
    steps += seat.steps;
    checked += seat.checked;
    acquired += seat.acquired;
    fresh += seat.fresh;
    short_of += seat.short_of;
    forks += seat.forks;
    over = std::max(over, seat.longest_over_us.load());
    hungry = std::max(hungry, seat.longest_hungry_us.load());
  }
  const auto n = [](std::uint64_t v) { return static_cast<unsigned long long>(v); };
  std::printf(
      "%llu kills, %llu stops, %llu forks (%llu asked for), %llu ends in good order, "
      "%llu times failing calls; %llu engines started\n",
      n(kills_), n(stops_), n(forks), n(forks_), n(ends_), n(faults_), n(started_));
  for (const auto& [status, count] : gave_up_)
    std::printf("%llu gave up with status %d after refused calls or behind a stopped process\n",
                n(count), status);
  std::printf(
      "%llu steps; %llu blocks acquired, %llu of them all zero, %llu read back again; "
      "%llu acquisitions were short\n",
      n(steps), n(acquired), n(fresh), n(checked), n(short_of));
  std::printf(
      "longest wait beyond its time %.1f ms, stops left out; "
      "longest below a minimum %.1f ms\n",
      static_cast<double>(over) / 1e3, static_cast<double>(hungry) / 1e3);
  std::fflush(stdout);
}

}  // namespace kvcached::chaos
