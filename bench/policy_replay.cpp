// Production traces through the balance of policy/, in simulated time: hundreds of tenants on one
// GPU, each with its slice, first come, and balanced, side by side; and two greedy tenants against
// one with a guarantee. Needs no GPU and no library.
//
//   build/bench/policy_replay [--traces DIR] [--foresight WHICH] [--svg FILE] [--json FILE]
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/chart/chart.hpp"
#include "bench/engine/percentile.hpp"
#include "bench/replay/greedy.hpp"
#include "bench/replay/world.hpp"

namespace {

using namespace kvcached;
using namespace kvcached::replay;
using Json = nlohmann::json;

constexpr double kPagesInGiB = 512;

double seconds(std::uint64_t steps) {
  return static_cast<double>(steps) * std::chrono::duration<double>(kStep).count();
}

Json waits_of(const Group& group) {
  return {{"p50_s", seconds(engine::percentile(group.waits, 0.5))},
          {"p99_s", seconds(engine::percentile(group.waits, 0.99))},
          {"max_s", seconds(engine::percentile(group.waits, 1))},
          {"below_minimum_s", seconds(group.below_minimum)}};
}

Json row_of(Way way, Pages pool, const WorldResult& r) {
  return {{"way", to_string(way)},
          {"pool_gib", static_cast<double>(pool.value) / kPagesInGiB},
          {"mean_gib", r.mean / kPagesInGiB},
          {"peak_gib", static_cast<double>(r.peak.value) / kPagesInGiB},
          {"used_gib", r.used / kPagesInGiB},
          {"arrived", r.arrived},
          {"done", r.done},
          {"rejected", r.rejected},
          {"tokens", r.tokens},
          {"preemptions", r.preemptions},
          {"worst_tenant_done", r.worst},
          {"tenth_tenant_done", r.tenth},
          {"guaranteed", waits_of(r.guaranteed)},
          {"others", waits_of(r.others)},
          {"warm", {{"hits", r.warm.hits}, {"misses", r.warm.misses}, {"vain", r.warm.vain}}},
          {"plans", r.plans}};
}

constexpr const char* kHeading =
    "pool              memory, GiB          requests              done, of the     waits with a "
    "minimum, s          waits of others, s\n"
    "GiB  way          mean  peak in use     done reject preempt   worst   tenth     p50    p99    "
    "max "
    " below*     p50    p99    max";
constexpr const char* kFootnote =
    "worst, tenth: the share of its requests that is done, of the tenant that is served worst, and "
    "of "
    "the one below which a tenth of all are\n"
    "* seconds, summed over tenants, in which something waited below its tenant's minimum";

void print_row(const Json& row) {
  const auto number = [](const Json& from, const char* key) { return from[key].get<double>(); };
  const Json& g = row["guaranteed"];
  const Json& o = row["others"];
  std::printf(
      "%3.0f  %-10s  %5.1f %5.1f %6.1f   %6.0f %6.0f %7.0f   %4.0f %%  %4.0f %%   %6.2f %6.2f "
      "%6.1f "
      "%7.1f  %6.2f %6.2f %6.1f\n",
      number(row, "pool_gib"), row["way"].get<std::string>().c_str(), number(row, "mean_gib"),
      number(row, "peak_gib"), number(row, "used_gib"), number(row, "done"),
      number(row, "rejected"), number(row, "preemptions"), 100 * number(row, "worst_tenant_done"),
      100 * number(row, "tenth_tenant_done"), number(g, "p50_s"), number(g, "p99_s"),
      number(g, "max_s"), number(g, "below_minimum_s"), number(o, "p50_s"), number(o, "p99_s"),
      number(o, "max_s"));
  std::fflush(stdout);
}

chart::Panel panel_of(const std::string& title, Pages pool, const WorldResult& result) {
  chart::Panel panel{title, {{}, {}}, {}, static_cast<double>(pool.value) / kPagesInGiB};
  for (const Sample& s : result.samples) {
    panel.areas[0].push_back(static_cast<double>(s.guaranteed.value) / kPagesInGiB);
    panel.areas[1].push_back(static_cast<double>(s.others.value) / kPagesInGiB);
    panel.line.push_back(static_cast<double>(s.used.value) / kPagesInGiB);
  }
  return panel;
}

struct Flags {
  std::string traces = "bench/demo/traces";
  std::string svg;
  std::string json;
  WorldSettings world;
};

Json replay_traces(const Flags& flags) {
  const std::vector<Load> loads = make_loads(flags.world);
  std::printf("%zu tenants, %lu minutes; every eighth has a minimum of %lu MiB\n",
              flags.world.tenants, flags.world.minutes, flags.world.minimum.value * 2);
  std::puts(kHeading);
  chart::Chart picture;
  picture.title = std::to_string(flags.world.tenants) + " tenants on one GPU, simulated";
  picture.areas = {"with a minimum", "others"};
  picture.line = "in use";
  picture.limit = "pool";
  picture.time = "seconds";
  Json rows = Json::array();
  for (const std::uint64_t gib : {96U, 24U, 20U, 16U}) {
    const Pages pool(gib * 512);
    for (const Way way : {Way::fixed, Way::first_come, Way::balanced}) {
      const WorldResult result = run_world(way, pool, flags.world, loads, {});
      rows.push_back(row_of(way, pool, result));
      print_row(rows.back());
      const std::string title = std::string(to_string(way)) + ", " + std::to_string(gib) + " GiB";
      if (gib == 96 ? way == Way::fixed : gib == 20 && way != Way::fixed) {
        picture.panels.push_back(panel_of(title, pool, result));
      }
    }
  }
  std::puts(kFootnote);
  if (!flags.svg.empty()) std::ofstream(flags.svg) << chart::draw(picture);
  return rows;
}

Json replay_greedy() {
  constexpr std::uint64_t kSteps = 20'000;
  constexpr unsigned kSeeds = 12;
  balance::Rules rules;
  rules.age = std::chrono::milliseconds(500);
  rules.turn = std::chrono::milliseconds(3000);
  balance::Rules no_aging = rules;
  no_aging.age = std::chrono::hours(1000);
  struct Case {
    const char* name;
    Way way;
    const balance::Rules& rules;
    bool gate;
  };
  std::printf(
      "\ntwo greedy tenants against one that asks for 40 to 90 of 300 pages; %u seeds of %lu "
      "steps, "
      "requests live up to 400\n"
      "minimum                     longest wait  seeds over 2000   met  others met  others' "
      "longest "
      "wait  pages in use\n",
      kSeeds, kSteps);
  Json rows = Json::array();
  for (const Pages minimum : {Pages(0), Pages(40), Pages(90)}) {
    for (const Case& c :
         {Case{"static", Way::fixed, rules, true}, Case{"first come", Way::first_come, rules, true},
          Case{"balanced", Way::balanced, rules, true},
          Case{"without aging", Way::balanced, no_aging, true},
          Case{"without the gate", Way::balanced, rules, false},
          Case{"without both", Way::balanced, no_aging, false}}) {
      GreedyResult sum;
      std::uint64_t over = 0;
      for (unsigned seed = 1; seed <= kSeeds; ++seed) {
        const GreedyResult r = run_greedy(c.way, c.rules, c.gate, minimum, kSteps, seed);
        sum.longest_wait = std::max(sum.longest_wait, r.longest_wait);
        sum.greedy_wait = std::max(sum.greedy_wait, r.greedy_wait);
        sum.met += r.met;
        sum.greedy_met += r.greedy_met;
        sum.pages += r.pages / kSeeds;
        over += r.longest_wait > 2000;
      }
      std::printf("%7lu  %-18s %12lu %16lu %5lu %11lu %20lu %13.0f\n", minimum.value, c.name,
                  sum.longest_wait, over, sum.met, sum.greedy_met, sum.greedy_wait, sum.pages);
      rows.push_back({{"minimum", minimum.value},
                      {"way", c.name},
                      {"longest_wait", sum.longest_wait},
                      {"seeds_over_2000", over},
                      {"met", sum.met},
                      {"greedy_met", sum.greedy_met},
                      {"greedy_longest_wait", sum.greedy_wait},
                      {"pages_in_use", sum.pages}});
    }
  }
  return rows;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"production traces through the balance of a pool, in simulated time"};
  Flags flags;
  app.add_option("--traces", flags.traces, "folder of the traces");
  app.add_option("--tenants", flags.world.tenants)->check(CLI::Range(1, 1000));
  app.add_option("--minutes", flags.world.minutes)->check(CLI::Range(1, 600));
  app.add_option("--foresight", flags.world.foresight, "what tenants say that they will need")
      ->transform(CLI::CheckedTransformer(std::map<std::string, Foresight>{
          {"none", Foresight::none}, {"queue", Foresight::queue}}));
  app.add_option("--svg", flags.svg, "draw memory over time into this file");
  app.add_option("--json", flags.json, "append one line of results to this file");
  CLI11_PARSE(app, argc, argv);
  // `make bench` runs elsewhere, and says where the tree is.
  const char* const tree = std::getenv("KVCACHED_SOURCE");
  if (!std::filesystem::exists(flags.traces) && tree != nullptr) {
    flags.traces = std::string(tree) + "/" + flags.traces;
  }
  flags.world.traces = flags.traces;
  try {
    const std::time_t now = std::time(nullptr);
    char date[32] = {};
    std::strftime(date, sizeof date, "%F", std::gmtime(&now));
    Json all{{"date", date}, {"tenants", flags.world.tenants}, {"minutes", flags.world.minutes}};
    all["traces"] = replay_traces(flags);
    all["greedy"] = replay_greedy();
    if (!flags.json.empty()) std::ofstream(flags.json, std::ios::app) << all.dump() << '\n';
  } catch (const std::exception& e) {
    std::fprintf(stderr, "policy_replay: %s\n", e.what());
    return 1;
  }
  return 0;
}
