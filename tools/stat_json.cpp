// Pools as JSON. Fields are added, never renamed.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tools/show.hpp"

namespace kvcached::tools {
namespace {

using ledger::History;
using ledger::MemberState;
using ledger::ModelShape;
using ledger::Moment;
using ledger::Snapshot;
using ledger::TenantCounters;
using ledger::TenantState;
using nlohmann::ordered_json;

std::uint64_t amount(Pages pages) { return bytes_of(pages).value; }

ordered_json describe(const ModelShape& model, std::uint64_t covered) {
  if (model.name.empty()) return nullptr;
  return {{"name", model.name},
          {"layers", model.layers},
          {"kv_heads", model.kv_heads},
          {"head_dim", model.head_dim},
          {"bytes_per_element", model.bytes_per_element},
          {"max_seq_len", model.max_seq_len},
          {"covered_tokens", std::min<std::uint64_t>(covered, model.max_seq_len)},
          {"block_tokens", model.block_tokens},
          {"bytes_per_token", model.bytes_per_token}};
}

// The buckets that have something in them. The last one has no bound.
ordered_json describe_waits(const TenantCounters& counters) {
  ordered_json waits = ordered_json::array();
  for (std::size_t i = 0; i < counters.waits.size(); ++i) {
    if (counters.waits[i] == 0) continue;
    ordered_json bound = nullptr;
    if (i + 1 < counters.waits.size()) {
      bound = ledger::wait_bound(i) / std::chrono::microseconds(1);
    }
    waits.push_back({{"below_us", bound}, {"count", counters.waits[i]}});
  }
  return waits;
}

ordered_json describe_takers(const TenantCounters& counters) {
  ordered_json takers = ordered_json::array();
  for (const TenantCounters::Taker& taker : counters.takers) {
    ordered_json name = nullptr;  // gone
    if (!taker.tenant.empty()) name = taker.tenant;
    takers.push_back({{"tenant", name}, {"bytes", amount(taker.pages)}});
  }
  return takers;
}

ordered_json describe(const TenantState& tenant, Pages pool) {
  ordered_json max = nullptr;  // none: all of the pool
  if (tenant.limits.max < pool) max = amount(tenant.limits.max);
  return {{"name", tenant.name},
          {"min_bytes", amount(tenant.limits.min)},
          {"min_promised", tenant.min_admitted},
          {"max_bytes", max},
          {"weight", tenant.limits.weight},
          {"charged_bytes", amount(tenant.charged)},
          {"least_bytes", amount(tenant.least)},
          {"grants", tenant.counters.grants},
          {"granted_bytes", amount(tenant.counters.granted)},
          {"short_grants", tenant.counters.short_grants},
          {"waits", describe_waits(tenant.counters)},
          {"waits_in_vain", tenant.counters.waits_in_vain},
          {"reclaimed_bytes", amount(tenant.counters.reclaimed)},
          {"reclaimed_for", describe_takers(tenant.counters)},
          {"below_min_ms", tenant.counters.below_min / std::chrono::milliseconds(1)},
          {"evicted_blocks", tenant.counters.evicted},
          {"warm_stripes",
           {{"hits", tenant.counters.stripes_kept.hits},
            {"misses", tenant.counters.stripes_kept.misses},
            {"in_vain", tenant.counters.stripes_kept.in_vain}}}};
}

ordered_json describe(const Snapshot& pool, const MemberState& member) {
  return {{"pid", member.pid},
          {"pid_namespace", member.pid_namespace},
          {"alive", member.alive},
          {"tenant", member.tenant},
          {"command", member.command},
          {"model", describe(member.model, ledger::covered_tokens(pool, member))},
          {"charged_bytes", amount(member.charged)},
          {"used_bytes", amount(member.figures.used)},
          {"fragmented_bytes", amount(member.figures.fragmented)},
          {"warm_bytes", amount(member.figures.warm)},
          {"want_bytes", amount(member.figures.want)},
          {"demand_bytes", amount(member.figures.demand)},
          {"reserved_bytes", member.figures.reserved.value},
          {"least_bytes", amount(member.figures.least)},
          {"plain_bytes", member.figures.plain.value},
          {"plain_peak_bytes", member.figures.plain_peak.value},
          {"short_grants", member.figures.short_grants},
          {"grows", member.figures.grows},
          {"releases", member.figures.releases},
          {"adapter", member.adapter},
          {"adapter_state", member.adapter_state}};
}

ordered_json describe(const Snapshot& pool) {
  const std::optional<Bytes> unexplained = pool.unexplained();
  ordered_json tenants = ordered_json::array();
  for (const TenantState& tenant : pool.tenants) tenants.push_back(describe(tenant, pool.pool));
  ordered_json processes = ordered_json::array();
  for (const MemberState& member : pool.members) processes.push_back(describe(pool, member));
  return {{"gpu", ledger::to_string(pool.gpu)},
          {"pool_bytes", amount(pool.pool)},
          {"charged_bytes", amount(pool.charged)},
          {"limbo_bytes", amount(pool.limbo)},
          {"free_bytes", amount(pool.free)},
          {"shortfall_bytes", amount(pool.shortfall)},
          {"gpu_bytes", pool.gpu_total ? ordered_json(amount(*pool.gpu_total)) : nullptr},
          {"gpu_free_bytes", pool.gpu_free ? ordered_json(amount(*pool.gpu_free)) : nullptr},
          {"plain_bytes", pool.plain().value},
          {"unexplained_bytes", unexplained ? ordered_json(unexplained->value) : nullptr},
          {"tenants", tenants},
          {"processes", processes}};
}

ordered_json describe(const Moment& moment, std::int64_t now) {
  ordered_json tenants = ordered_json::array();
  for (const Moment::Tenant& tenant : moment.tenants) {
    ordered_json name = nullptr;  // gone since
    if (!tenant.name.empty()) name = tenant.name;
    tenants.push_back({{"name", name},
                       {"charged_bytes", amount(tenant.charged)},
                       {"used_bytes", amount(tenant.used)},
                       {"want_bytes", amount(tenant.want)}});
  }
  return {{"seconds_ago", now - moment.second},      {"pool_bytes", amount(moment.pool)},
          {"charged_bytes", amount(moment.charged)}, {"limbo_bytes", amount(moment.limbo)},
          {"free_bytes", amount(moment.free)},       {"used_bytes", amount(moment.used)},
          {"want_bytes", amount(moment.want)},       {"tenants", tenants}};
}

// Bytes that are not UTF-8 are replaced, so that the output is JSON whatever a program is named.
std::string text_of(const ordered_json& pools, bool on_one_line) {
  return ordered_json{{"pools", pools}}.dump(on_one_line ? -1 : 2, ' ', false,
                                             ordered_json::error_handler_t::replace) +
         "\n";
}

}  // namespace

std::string json_of(const std::vector<Snapshot>& pools, bool on_one_line) {
  ordered_json all = ordered_json::array();
  for (const Snapshot& pool : pools) all.push_back(describe(pool));
  return text_of(all, on_one_line);
}

std::string json_of(const std::vector<History>& histories, std::int64_t now, bool on_one_line) {
  ordered_json all = ordered_json::array();
  for (const History& history : histories) {
    ordered_json moments = ordered_json::array();
    for (const Moment& moment : history.moments) moments.push_back(describe(moment, now));
    all.push_back({{"gpu", ledger::to_string(history.gpu)}, {"history", moments}});
  }
  return text_of(all, on_one_line);
}

}  // namespace kvcached::tools
