// Pools as tables.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/show.hpp"
#include "tools/table.hpp"

namespace kvcached::tools {
namespace {

using ledger::MemberState;
using ledger::ModelShape;
using ledger::Snapshot;
using ledger::TenantCounters;
using ledger::TenantState;

using Rows = std::vector<std::vector<std::string>>;

std::string show_model(const ModelShape& model, std::uint64_t covered) {
  if (model.name.empty()) return "-";
  // A tenant may have too little for the model's longest request.
  const std::string short_of =
      covered < model.max_seq_len
          ? fmt::format(", requests up to {} of {} tokens", covered, model.max_seq_len)
          : "";
  return fmt::format("{} ({} layers, {} x {} x {} B, {}/token{})", clean(model.name), model.layers,
                     model.kv_heads, model.head_dim, model.bytes_per_element,
                     show_size(Bytes(model.bytes_per_token)), short_of);
}

std::string show_adapter(const MemberState& member) {
  if (member.adapter.empty()) return "-";
  return clean(member.adapter) +
         (member.adapter_state.empty() ? "" : ": " + clean(member.adapter_state));
}

std::string show_min(const TenantState& tenant) {
  return show_size(tenant.limits.min) + (tenant.min_admitted ? "" : " (not promised)");
}

// The bound below which so many of a thousand waits were.
std::string show_wait(const TenantCounters& counters, std::uint64_t of_thousand) {
  std::uint64_t all = 0;
  for (const std::uint32_t count : counters.waits) all += count;
  if (all == 0) return "-";
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i + 1 < counters.waits.size(); ++i) {
    seen += counters.waits[i];
    if (seen * 1000 >= all * of_thousand) return show_time(ledger::wait_bound(i));
  }
  return ">" + show_time(ledger::wait_bound(counters.waits.size() - 2));
}

// Where the whole GPU's memory is.
std::string show_gpu(const Snapshot& pool) {
  const std::optional<Bytes> unexplained = pool.unexplained();
  if (!unexplained) return "";
  return fmt::format("GPU {}: pool {}, plain {}, unexplained {}, free {}\n",
                     show_size(*pool.gpu_total), show_size(pool.charged + pool.limbo),
                     show_size(pool.plain()), show_size(*unexplained), show_size(*pool.gpu_free));
}

std::string show_tenants(const Snapshot& pool) {
  Rows limits{{"TENANT", "MIN", "MAX", "WEIGHT", "CHARGED", "LEAST"}};
  Rows events{{"TENANT", "GRANTS", "SHORT", "WAITS", "P50", "P99", "IN VAIN", "BELOW MIN",
               "RECLAIMED", "EVICTED", "WARM HITS", "MISSES", "IN VAIN"}};
  Rows takers{{"RECLAIMED FROM", "FOR", "SIZE"}};
  for (const TenantState& tenant : pool.tenants) {
    const TenantCounters& counters = tenant.counters;
    const std::string name = clean(tenant.name);
    const bool capped = tenant.limits.max < pool.pool;
    limits.push_back({name, show_min(tenant), capped ? show_size(tenant.limits.max) : "-",
                      std::to_string(tenant.limits.weight), show_size(tenant.charged),
                      show_size(tenant.least)});
    std::uint64_t waits = 0;
    for (const std::uint32_t count : counters.waits) waits += count;
    events.push_back({name, std::to_string(counters.grants), std::to_string(counters.short_grants),
                      std::to_string(waits), show_wait(counters, 500), show_wait(counters, 990),
                      std::to_string(counters.waits_in_vain), show_time(counters.below_min),
                      show_size(counters.reclaimed), std::to_string(counters.evicted),
                      std::to_string(counters.stripes_kept.hits),
                      std::to_string(counters.stripes_kept.misses),
                      std::to_string(counters.stripes_kept.in_vain)});
    for (const TenantCounters::Taker& taker : counters.takers) {
      takers.push_back(
          {name, taker.tenant.empty() ? "(gone)" : clean(taker.tenant), show_size(taker.pages)});
    }
  }
  std::string text = "\n" + show_table(limits) + "\n" + show_table(events);
  if (takers.size() > 1) text += "\n" + show_table(takers);
  return text;
}

std::string show_members(const Snapshot& pool) {
  Rows rows{{"PID", "TENANT", "COMMAND", "CHARGED", "USED", "FRAGMENTED", "WARM", "WANT", "SHORT",
             "PLAIN", "PEAK", "ADAPTER", "MODEL"}};
  for (const MemberState& member : pool.members) {
    const ledger::Figures& figures = member.figures;
    rows.push_back({show_process(member) + (member.alive ? "" : " (dead)"), clean(member.tenant),
                    clean(member.command), show_size(member.charged), show_size(figures.used),
                    show_size(figures.fragmented), show_size(figures.warm), show_size(figures.want),
                    std::to_string(figures.short_grants), show_size(figures.plain),
                    show_size(figures.plain_peak), show_adapter(member),
                    show_model(member.model, ledger::covered_tokens(pool, member))});
  }
  return "\n" + show_table(rows);
}

}  // namespace

std::string show_process(const MemberState& member) {
  static const std::uint64_t own = ledger::pid_namespace();
  const bool here = member.pid_namespace == 0 || member.pid_namespace == own;
  return std::to_string(member.pid) + (here ? "" : " (elsewhere)");
}

std::string table_of(const Snapshot& pool) {
  std::string text = fmt::format(
      "{}\npool {}, charged {}, limbo {}, free {}{}\n", ledger::to_string(pool.gpu),
      show_size(pool.pool), show_size(pool.charged), show_size(pool.limbo), show_size(pool.free),
      pool.shortfall ? ", not there " + show_size(pool.shortfall) : "");
  text += show_gpu(pool);
  text += pool.tenants.empty() ? "no tenants\n" : show_tenants(pool);
  if (!pool.members.empty()) text += show_members(pool);
  return text;
}

}  // namespace kvcached::tools
