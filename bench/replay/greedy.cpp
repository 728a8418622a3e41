#include "bench/replay/greedy.hpp"

#include <algorithm>
#include <array>
#include <random>
#include <vector>

namespace kvcached::replay {
namespace {

using std::chrono::milliseconds;

constexpr Pages kPool{300};
constexpr std::uint64_t kLongestLife = 400;
// A tenant without a sink for idle pages gives some back by itself, as engines do after a while.
constexpr std::uint64_t kHouse = 50;
constexpr std::uint64_t kTick = 10;

struct Request {
  Pages pages;
  std::uint64_t end;
};

struct Engine {
  bool greedy;
  std::vector<Request> running;
  std::uint64_t asks_at = 0;
  std::uint64_t asked_at = 0;
  std::uint64_t longest = 0;
  std::uint64_t met = 0;
};

class Run {
 public:
  Run(Way way, const balance::Rules& rules, bool gate, Pages minimum, unsigned seed)
      : random_(seed), gate_(gate), shared_(way, kPool, records(minimum), rules) {
    engines_[2].greedy = false;
  }

  GreedyResult run(std::uint64_t steps) {
    for (step_ = 0; step_ < steps; ++step_) {
      // Nobody is always first.
      const std::size_t first = random_() % engines_.size();
      for (std::size_t i = 0; i < engines_.size(); ++i) turn((first + i) % engines_.size());
      const balance::Tenant& modest = shared_.tenants()[2];
      if (modest.want && modest.charged < modest.min && modest.charged < modest.want) {
        ++result_.below_minimum;
      }
      for (const balance::Tenant& t : shared_.tenants()) {
        result_.pages += static_cast<double>(t.used.value) / static_cast<double>(steps);
      }
    }
    for (std::size_t i = 0; i < engines_.size(); ++i) {
      Engine& e = engines_[i];
      if (shared_.tenant(i).want) e.longest = std::max(e.longest, steps - e.asked_at);
    }
    result_.longest_wait = engines_[2].longest;
    result_.met = engines_[2].met;
    result_.greedy_wait = std::max(engines_[0].longest, engines_[1].longest);
    result_.greedy_met = engines_[0].met + engines_[1].met;
    return result_;
  }

 private:
  static std::vector<balance::Tenant> records(Pages minimum) {
    std::vector<balance::Tenant> tenants(3);
    tenants[2].min = minimum;
    return tenants;
  }

  std::uint64_t upto(std::uint64_t least, std::uint64_t most) {
    return least + random_() % (most - least + 1);
  }
  Instant now() const { return Instant(milliseconds(step_)); }

  void turn(std::size_t i) {
    Engine& e = engines_[i];
    balance::Tenant& t = shared_.tenant(i);
    finish(e, t);
    // What an engine frees it could use at once; its agent comes by only now and then.
    if (step_ % kTick == i) {
      const Pages due = shared_.due(i, now());
      if (due) shared_.give_back(i, due);
    }
    if (shared_.is_elastic() && step_ % kHouse == 0 && balance::idle(t))
      shared_.give_back(i, balance::idle(t) / 2);
    if (!t.want && step_ >= e.asks_at) ask(e, t);
    if (t.want) serve(i, e, t);
    t.demand = t.used;  // its queue is its wish, with which a plan reckons by itself
  }

  void finish(Engine& e, balance::Tenant& t) {
    std::erase_if(e.running, [&](const Request& r) {
      if (r.end > step_) return false;
      t.used -= r.pages;
      shared_.changed();
      return true;
    });
  }

  void ask(Engine& e, balance::Tenant& t) {
    t.want = Pages(e.greedy ? upto(5, 60) : upto(40, 90));
    t.since = now();
    e.asked_at = step_;
    shared_.changed();
  }

  void serve(std::size_t i, Engine& e, balance::Tenant& t) {
    if (balance::missing(t)) shared_.grant(i, balance::missing(t), now());
    if (balance::at_hand(t) < t.want) return;
    if (gate_ && !shared_.may_reuse(i, t.want, now())) return;
    t.used += t.want;
    e.running.push_back({t.want, step_ + upto(1, kLongestLife)});
    t.want = Pages();
    e.longest = std::max(e.longest, step_ - e.asked_at);
    ++e.met;
    e.asks_at = step_ + (e.greedy ? 0 : upto(1, 600));
    shared_.changed();
  }

  std::mt19937 random_;
  bool gate_;
  Shared shared_;
  std::array<Engine, 3> engines_{{{true, {}}, {true, {}}, {true, {}}}};
  std::uint64_t step_ = 0;
  GreedyResult result_;
};

}  // namespace

GreedyResult run_greedy(Way way, const balance::Rules& rules, bool gate, Pages minimum,
                        std::uint64_t steps, unsigned seed) {
  return Run(way, rules, gate, minimum, seed).run(steps);
}

}  // namespace kvcached::replay
