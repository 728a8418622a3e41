// What the pool's account costs: a charge and an uncharge beside two bare locks and unlocks of a
// byte of a file; the same with other processes in the way; and what a stopped holder of the lock
// costs the others. Needs no GPU.
//
//   build/bench/ledger [--processes N] [--think-us N] [--json FILE]
//
// Bare and ours take turns in the same processes and wait alike: try, spin, sleep, try again. Ours
// locks a file as a whole (flock); with others in the way that stands beside it, too. Speed never
// decides the exit code.
#include "policy/ledger/ledger.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "bench/measure/child.hpp"
#include "bench/measure/numbers.hpp"
#include "bench/measure/report.hpp"
#include "policy/ledger/file.hpp"
#include "policy/ledger/patience.hpp"
#include "policy/ledger/test_points.hpp"

namespace {

using namespace kvcached;
using bench::Clock;

constexpr std::size_t kMost = 200'000;  // samples of one kind in one process
constexpr int kPatience = 45;           // the ledger's own, in milliseconds
constexpr double kTurn = 0.5;

ledger::GpuUuid nobodys_gpu() {
  ledger::GpuUuid uuid{};
  std::memcpy(uuid.data(), "ledger benchmark", uuid.size());
  return uuid;
}

std::unique_ptr<ledger::Ledger> join(const std::string& folder, const std::string& tenant) {
  ledger::Refusal refusal{};
  std::string complaint;
  auto pool = ledger::Ledger::open({folder, nobodys_gpu(), Pages(40'000)}, steady_clock(), refusal,
                                   complaint);
  if (!pool || !pool->join({tenant, {Pages(0), Pages::max(), 100}, "bench"}, complaint))
    throw std::runtime_error(complaint);
  return pool;
}

ledger::PoolFile bare_file(const std::string& folder) {
  const std::string path = folder + "/bare";
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) throw std::runtime_error(path + ": " + std::strerror(errno));
  return ledger::PoolFile(descriptor);
}

enum Kind { kPause, kByte, kWhole, kOurs, kStopped, kEnd };

// What the processes share. Each writes its own samples, in microseconds.
struct Worker {
  std::atomic<std::size_t> count[kEnd];
  std::atomic<std::uint64_t> refused[kEnd];
  double samples[kEnd][kMost];
};
struct Shared {
  std::atomic<int> kind{kPause};
  std::atomic<int> ready{0};
};

template <class T>
T* shared_memory(std::size_t count) {
  void* at = ::mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) throw std::runtime_error("no shared memory");
  return static_cast<T*>(at);
}

void think(double microseconds) {
  std::this_thread::sleep_for(std::chrono::nanoseconds(static_cast<long>(1e3 * microseconds)));
}

bool lock_byte(const ledger::PoolFile& file) {
  ledger::Patience patience(kPatience);
  while (!file.try_lock(0, ledger::LockKind::exclusive)) {
    if (!patience.wait()) return false;
  }
  file.unlock(0);
  return true;
}

bool lock_whole(const ledger::PoolFile& file) {
  const bool got = file.lock_within(ledger::LockKind::exclusive, kPatience);
  if (got) file.unlock();
  return got;
}

// Until told to end: locks or charges, thinks, locks again or uncharges, thinks.
void work(const std::string& folder, int number, double think_us, Shared& shared, Worker& own) {
  const ledger::PoolFile bare = bare_file(folder);
  const auto pool = join(folder, "tenant-" + std::to_string(number));
  std::mt19937 random(static_cast<unsigned>(number) + 1);
  std::uniform_real_distribution<double> pause(0.5 * think_us, 1.5 * think_us);
  ++shared.ready;
  for (int kind = 0; (kind = shared.kind.load()) != kEnd; think(pause(random))) {
    if (kind == kPause) continue;
    const auto sample = [&](auto call) {
      const auto start = Clock::now();
      const bool done = call();
      const std::size_t n = own.count[kind].load();
      if (n < kMost) {
        own.samples[kind][n] = 1e6 * bench::seconds(start);
        own.count[kind] = n + 1;
      }
      if (!done) ++own.refused[kind];
      return done;
    };
    if (kind == kByte || kind == kWhole) {
      const auto lock = [&] { return kind == kByte ? lock_byte(bare) : lock_whole(bare); };
      sample(lock);
      think(pause(random));
      sample(lock);
    } else if (sample([&] { return pool->charge(Pages(1)); })) {
      think(pause(random));
      sample([&] {
        pool->uncharge(Pages(1));
        return true;
      });
    }
  }
}

// Stops itself with the lock in its hands.
void hold_and_stop(const std::string& folder) {
  const auto pool = join(folder, "stopped");
  ledger::test_point_hook = [](const char* point) {
    if (std::strcmp(point, "charge.before") == 0) ::raise(SIGSTOP);
  };
  pool->charge(Pages(1));
}

template <class F>
pid_t forked(F body) {
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) throw std::runtime_error("fork: " + std::string(std::strerror(errno)));
  if (pid != 0) return pid;
  int status = 0;
  try {
    body();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "ledger: process %d of %d: %s\n", ::getpid(), parent, e.what());
    status = 1;
  }
  ::_exit(status);
}

// Nobody in the way, with so many other members that hold memory and do nothing.
void alone(bench::Report& report, const std::string& folder, int others) {
  constexpr int kBatches = 100, kOperations = 1000;
  const ledger::PoolFile bare = bare_file(folder);
  std::vector<std::unique_ptr<ledger::Ledger>> idle;
  for (int i = 0; i < others; ++i) {
    idle.push_back(join(folder, "idle-" + std::to_string(i)));
    if (!idle.back()->charge(Pages(1))) throw std::runtime_error("a charge was refused");
  }
  const auto pool = join(folder, "alone");
  std::vector<double> raw, ours;
  for (int batch = 0; batch < kBatches; ++batch) {
    const double bare_ms = bench::timed([&] {
      for (int i = 0; i < 2 * kOperations; ++i) {
        if (!bare.try_lock(0, ledger::LockKind::exclusive))
          throw std::runtime_error("the bare lock is not free");
        bare.unlock(0);
      }
    });
    const double ours_ms = bench::timed([&] {
      for (int i = 0; i < kOperations; ++i) {
        if (!pool->charge(Pages(1))) throw std::runtime_error("a charge was refused");
        pool->uncharge(Pages(1));
      }
    });
    raw.push_back(bare_ms * 1e3 / kOperations);
    ours.push_back(ours_ms * 1e3 / kOperations);
  }
  const std::string where = others == 0 ? "alone" : "among " + std::to_string(others) + " idle";
  report.compare("charge and uncharge, two locks, " + where, ours, raw, "us");
  report.goal("ratio " + where, bench::median(ours) / bench::median(raw), 3, "x");
}

class Contest {
 public:
  Contest(const std::string& folder, int processes, double think_us)
      : folder_(folder),
        shared_(*new (shared_memory<Shared>(1)) Shared),
        workers_(shared_memory<Worker>(static_cast<std::size_t>(processes))),
        processes_(processes) {
    for (int i = 0; i < processes; ++i) {
      pids_.push_back(forked([&] { work(folder_, i, think_us, shared_, workers_[i]); }));
    }
    const auto start = Clock::now();
    while (shared_.ready != processes) {
      if (bench::seconds(start) > 5) throw std::runtime_error("the processes did not start");
      think(1000);
    }
  }
  ~Contest() {
    shared_.kind = kEnd;
    for (const pid_t pid : pids_) ::waitpid(pid, nullptr, 0);
  }
  Contest(const Contest&) = delete;
  Contest& operator=(const Contest&) = delete;

  void turn(Kind kind, double seconds) {
    shared_.kind = kind;
    think(1e6 * seconds);
    shared_.kind = kPause;
    think(2'000);
  }

  void compare(bench::Report& report) {
    for (int i = 0; i < 6; ++i) {
      for (const Kind kind : {kByte, kWhole, kOurs}) turn(kind, kTurn);
    }
    const std::string what = std::to_string(processes_) + " processes";
    const std::vector<double> byte = all(kByte), ours = all(kOurs);
    report.compare("a charge or uncharge, a lock, " + what, ours, byte, "us");
    const double bare99 = bench::quantile(byte, 0.99);
    report.goal("ratio of p99, " + what, bare99 > 0 ? bench::quantile(ours, 0.99) / bare99 : 0, 2,
                "x");
    report.compare("beside a lock of the whole file, " + what, ours, all(kWhole), "us");
    if (refused(kByte) + refused(kWhole) + refused(kOurs) != 0) {
      report.note("not got within " + std::to_string(kPatience) + " ms: a byte " +
                  std::to_string(refused(kByte)) + ", the file " + std::to_string(refused(kWhole)) +
                  ", ours " + std::to_string(refused(kOurs)));
    }
  }

  void stop_a_holder(bench::Report& report) {
    shared_.kind = kPause;
    const pid_t holder = forked([&] { hold_and_stop(folder_); });
    int status = 0;
    if (::waitpid(holder, &status, WUNTRACED) != holder || !WIFSTOPPED(status))
      throw std::runtime_error("the holder did not stop with the lock");
    turn(kStopped, 1);
    ::kill(holder, SIGKILL);
    ::kill(holder, SIGCONT);
    ::waitpid(holder, nullptr, 0);
    double longest = 0, second = 0;
    for (int i = 0; i < processes_; ++i) {
      std::vector<double> samples = of(i, kStopped);
      std::sort(samples.rbegin(), samples.rend());
      if (samples.size() < 2) throw std::runtime_error("a process was blocked by a stopped holder");
      longest = std::max(longest, samples[0]);
      second = std::max(second, samples[1]);
    }
    // The patience, and one last sleep of it.
    report.goal("stopped holder: longest delay of each", longest / 1e3, 50, "ms");
    report.goal("stopped holder: second longest", second / 1e3, 1, "ms");
  }

 private:
  std::vector<double> of(int worker, Kind kind) const {
    const Worker& w = workers_[worker];
    return {w.samples[kind], w.samples[kind] + w.count[kind].load()};
  }
  std::vector<double> all(Kind kind) const {
    std::vector<double> out;
    for (int i = 0; i < processes_; ++i) {
      const std::vector<double> more = of(i, kind);
      out.insert(out.end(), more.begin(), more.end());
    }
    return out;
  }
  std::uint64_t refused(Kind kind) const {
    std::uint64_t sum = 0;
    for (int i = 0; i < processes_; ++i) sum += workers_[i].refused[kind];
    return sum;
  }

  const std::string folder_;
  Shared& shared_;
  Worker* const workers_;
  const int processes_;
  std::vector<pid_t> pids_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"the pool's account beside bare file locks"};
  const unsigned cores = std::max(2U, std::thread::hardware_concurrency());
  int processes = static_cast<int>(std::min(16U, cores));
  double think_us = 200;
  std::string json;
  app.add_option("--processes", processes)->check(CLI::Range(1, 60));
  app.add_option("--think-us", think_us, "between two locks of a process, on average")
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--json", json, "append one line of results to this file");
  CLI11_PARSE(app, argc, argv);
  try {
    const bench::Folder folder;
    bench::Report report(std::to_string(cores) + " processors", 0);
    alone(report, folder.path(), 0);
    alone(report, folder.path(), processes - 1);
    Contest contest(folder.path(), processes, think_us);
    contest.compare(report);
    contest.stop_a_holder(report);
    report.write(json);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "ledger: %s\n", e.what());
    return 1;
  }
  return 0;
}
