// The verb that shows the pools.
#include <fmt/format.h>

#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "policy/ledger/ledger.hpp"
#include "policy/settings.hpp"
#include "tools/table.hpp"
#include "tools/verbs.hpp"

namespace kvcached::tools {
namespace {

using ledger::MemberState;
using ledger::ModelShape;
using ledger::Snapshot;
using ledger::TenantState;
using nlohmann::ordered_json;

// Names come from other processes: a stray control character must not reach the terminal.
std::string clean(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text.empty() ? "-" : text;
}

std::string show_model(const ModelShape& model) {
  if (model.name.empty()) return "-";
  return fmt::format("{} ({} layers, {} x {} x {} B, {}/token)", clean(model.name), model.layers,
                     model.kv_heads, model.head_dim, model.bytes_per_element,
                     show_size(Bytes(model.bytes_per_token)));
}

std::string show_adapter(const MemberState& member) {
  if (member.adapter.empty()) return "-";
  return clean(member.adapter) +
         (member.adapter_state.empty() ? "" : ": " + clean(member.adapter_state));
}

std::string show_min(const TenantState& tenant) {
  return show_size(tenant.limits.min) + (tenant.min_admitted ? "" : " (not promised)");
}

void print_pool(const Snapshot& pool) {
  fmt::print("{}\npool {}, charged {}, limbo {}, free {}\n", ledger::to_string(pool.gpu),
             show_size(pool.pool), show_size(pool.charged), show_size(pool.limbo),
             show_size(pool.free));
  if (pool.tenants.empty()) fmt::print("no tenants\n");
  if (!pool.tenants.empty()) {
    std::vector<std::vector<std::string>> rows{{"TENANT", "MIN", "MAX", "WEIGHT", "CHARGED"}};
    for (const TenantState& tenant : pool.tenants) {
      const bool capped = tenant.limits.max < pool.pool;
      rows.push_back({clean(tenant.name), show_min(tenant),
                      capped ? show_size(tenant.limits.max) : "-",
                      std::to_string(tenant.limits.weight), show_size(tenant.charged)});
    }
    fmt::print("\n{}", show_table(rows));
  }
  if (!pool.members.empty()) {
    std::vector<std::vector<std::string>> rows{{"PID", "TENANT", "COMMAND", "CHARGED", "USED",
                                                "FRAGMENTED", "WARM", "WANT", "SHORT", "ADAPTER",
                                                "MODEL"}};
    for (const MemberState& member : pool.members) {
      rows.push_back({std::to_string(member.pid) + (member.alive ? "" : " (dead)"),
                      clean(member.tenant), clean(member.command), show_size(member.charged),
                      show_size(member.figures.used), show_size(member.figures.fragmented),
                      show_size(member.figures.warm), show_size(member.figures.want),
                      std::to_string(member.figures.short_grants), show_adapter(member),
                      show_model(member.model)});
    }
    fmt::print("\n{}", show_table(rows));
  }
}

std::uint64_t amount(Pages pages) { return bytes_of(pages).value; }

ordered_json describe(const ModelShape& model) {
  if (model.name.empty()) return nullptr;
  return {{"name", model.name},
          {"layers", model.layers},
          {"kv_heads", model.kv_heads},
          {"head_dim", model.head_dim},
          {"bytes_per_element", model.bytes_per_element},
          {"max_seq_len", model.max_seq_len},
          {"block_tokens", model.block_tokens},
          {"bytes_per_token", model.bytes_per_token}};
}

ordered_json describe(const TenantState& tenant, Pages pool) {
  ordered_json max = nullptr;  // none: all of the pool
  if (tenant.limits.max < pool) max = amount(tenant.limits.max);
  return {{"name", tenant.name},
          {"min_bytes", amount(tenant.limits.min)},
          {"min_promised", tenant.min_admitted},
          {"max_bytes", max},
          {"weight", tenant.limits.weight},
          {"charged_bytes", amount(tenant.charged)}};
}

ordered_json describe(const MemberState& member) {
  return {{"pid", member.pid},
          {"alive", member.alive},
          {"tenant", member.tenant},
          {"command", member.command},
          {"model", describe(member.model)},
          {"charged_bytes", amount(member.charged)},
          {"used_bytes", amount(member.figures.used)},
          {"fragmented_bytes", amount(member.figures.fragmented)},
          {"warm_bytes", amount(member.figures.warm)},
          {"want_bytes", amount(member.figures.want)},
          {"reserved_bytes", member.figures.reserved.value},
          {"short_grants", member.figures.short_grants},
          {"grows", member.figures.grows},
          {"releases", member.figures.releases},
          {"adapter", member.adapter},
          {"adapter_state", member.adapter_state}};
}

ordered_json describe(const Snapshot& pool) {
  ordered_json tenants = ordered_json::array();
  for (const TenantState& tenant : pool.tenants) tenants.push_back(describe(tenant, pool.pool));
  ordered_json processes = ordered_json::array();
  for (const MemberState& member : pool.members) processes.push_back(describe(member));
  return {{"gpu", ledger::to_string(pool.gpu)},
          {"pool_bytes", amount(pool.pool)},
          {"charged_bytes", amount(pool.charged)},
          {"limbo_bytes", amount(pool.limbo)},
          {"free_bytes", amount(pool.free)},
          {"tenants", tenants},
          {"processes", processes}};
}

void print_json(const std::vector<Snapshot>& pools) {
  ordered_json all = ordered_json::array();
  for (const Snapshot& pool : pools) all.push_back(describe(pool));
  // Bytes that are not UTF-8 are replaced, so that the output is JSON whatever a program is named.
  fmt::print("{}\n", ordered_json{{"pools", all}}.dump(2, ' ', false,
                                                       ordered_json::error_handler_t::replace));
}

}  // namespace

int stat(const StatOptions& options) {
  std::string directory = options.directory;
  if (directory.empty()) {
    std::vector<std::string> ignored;
    directory =
        read_settings([](const char* name) { return std::getenv(name); }, ignored).directory;
  }
  std::vector<std::string> complaints;
  const std::vector<Snapshot> pools = ledger::read_pools(directory, complaints);
  if (options.json && !pools.empty()) print_json(pools);
  if (!options.json) {
    for (const Snapshot& pool : pools) {
      if (&pool != pools.data()) fmt::print("\n");
      print_pool(pool);
    }
  }
  if (pools.empty() && complaints.empty()) {
    complaints.push_back(fmt::format(
        "stat: no pool in {}; an engine makes one when it allocates its cache", directory));
  }
  for (const std::string& line : complaints) complain(line);
  return complaints.empty() ? 0 : kBadUse;
}

}  // namespace kvcached::tools
