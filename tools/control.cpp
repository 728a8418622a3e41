// The verbs that change a pool in use: set, trim, limit.
#include "policy/ledger/control.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "policy/clock.hpp"
#include "policy/ledger/ledger.hpp"
#include "tools/choose.hpp"
#include "tools/show.hpp"
#include "tools/table.hpp"
#include "tools/verbs.hpp"

namespace kvcached::tools {
namespace {

using ledger::MemberState;
using ledger::Snapshot;
using ledger::TenantState;

constexpr auto kLook = std::chrono::milliseconds(10);
constexpr Duration kSilence = std::chrono::seconds(3);  // an agent speaks once a second

int refuse(std::string_view verb, const std::string& why) {
  complain(fmt::format("{}: {}", verb, why));
  return kRefused;
}

// The pool as it is now; none once its file is gone.
std::optional<Snapshot> look(const std::string& directory, const ledger::GpuUuid& gpu) {
  std::vector<std::string> ignored;
  for (Snapshot& pool : ledger::read_pools(directory, ignored)) {
    if (pool.gpu == gpu) return std::move(pool);
  }
  return std::nullopt;
}

const TenantState* find(const Snapshot& pool, const std::string& tenant) {
  const auto found = std::find_if(pool.tenants.begin(), pool.tenants.end(),
                                  [&](const TenantState& one) { return one.name == tenant; });
  return found == pool.tenants.end() ? nullptr : &*found;
}

// Looks at the pool until `reached`, or `wait` is over. The last look.
std::optional<Snapshot> wait_until(const ControlOptions& options, const Place& place,
                                   const std::function<bool(const Snapshot&)>& reached) {
  const Instant deadline = steady_clock().now() + options.wait;
  for (;;) {
    std::optional<Snapshot> pool = look(place.directory, place.gpu);
    if (!pool || reached(*pool) || steady_clock().now() >= deadline) return pool;
    std::this_thread::sleep_for(kLook);
  }
}

// Why no less is charged, as far as the members have said; and which of them have not answered an
// order to trim, if there was one.
std::string what_stays(const Snapshot& pool, const std::string& tenant,
                       std::optional<std::uint32_t> order = {}) {
  Pages used;
  Pages fragmented;
  Pages warm;
  Pages want;
  std::string silent;
  std::string firm;
  const Instant now = steady_clock().now();
  for (const MemberState& member : pool.members) {
    if (!member.alive || (!tenant.empty() && member.tenant != tenant)) continue;
    const bool quiet = now - member.heard > kSilence;
    if ((quiet && member.charged) || (order && member.trimmed != *order)) {
      silent += fmt::format("; process {} {}", show_process(member),
                            quiet ? "is silent" : "has not answered");
    }
    if (!member.charged) continue;
    used += member.figures.used;
    fragmented += member.figures.fragmented;
    warm += member.figures.warm;
    want += member.figures.want;
    if (!member.figures.stripe) {
      firm = fmt::format("; process {} has memory that is backed as a whole", show_process(member));
    }
  }
  const char* const why = want ? "kept for requests that wait" : "not given back yet";
  const std::string idle = warm ? fmt::format(", {} {}", show_size(warm), why) : "";
  return fmt::format("in use {}, fragmented {}{}{}{}", show_size(used), show_size(fragmented), idle,
                     firm, silent);
}

std::string from_to(Pages before, Pages after) {
  return fmt::format("charged {} before, {} now", show_size(before), show_size(after));
}

}  // namespace

int set(const std::string& tenant, const std::vector<std::string>& words,
        const ControlOptions& options) {
  LimitChange change;
  if (const std::string bad = parse_changes(words, change); !bad.empty()) {
    return complain("set: " + bad);
  }
  Place place;
  if (const int code = choose("set", options, tenant, place); code != 0) return code;
  const std::string why =
      ledger::change_limits(place.directory, place.gpu, tenant, change, steady_clock());
  if (!why.empty()) return refuse("set", why);
  const TenantState* before = find(place.pool, tenant);
  const Pages charged_before = before != nullptr ? before->charged : Pages();
  const auto within = [&](const Snapshot& pool) {
    const TenantState* now = find(pool, tenant);
    return now == nullptr || now->charged <= now->limits.max;
  };
  const auto pool = wait_until(options, place, within);
  const TenantState* const now = pool ? find(*pool, tenant) : nullptr;
  if (now == nullptr) return refuse("set", clean(tenant) + " has left the pool");
  fmt::print("{}: min {}, max {}, weight {}; {}\n", clean(tenant), show_size(now->limits.min),
             now->limits.max < pool->pool ? show_size(now->limits.max) : "-", now->limits.weight,
             from_to(charged_before, now->charged));
  if (!within(*pool)) {
    fmt::print("{}: above its maximum; it grows no more, and falls as it frees: {}\n",
               clean(tenant), what_stays(*pool, tenant));
  }
  return 0;
}

int trim(const std::string& tenant, const ControlOptions& options) {
  Place place;
  if (const int code = choose("trim", options, tenant, place); code != 0) return code;
  std::uint32_t order = 0;
  const Instant begin = steady_clock().now();
  const std::string why = ledger::order_trim(place.directory, place.gpu, tenant, order);
  if (!why.empty()) return refuse("trim", why);
  const TenantState* before = find(place.pool, tenant);
  const Pages charged_before = before != nullptr ? before->charged : Pages();
  const auto done = [&](const Snapshot& pool) {
    return std::all_of(pool.members.begin(), pool.members.end(), [&](const MemberState& member) {
      if (!member.alive || member.tenant != tenant) return true;
      return member.trimmed == order && member.heard > begin && !member.figures.warm &&
             (!member.figures.fragmented || steady_clock().now() - begin >= options.wait);
    });
  };
  const auto pool = wait_until(options, place, done);
  const TenantState* const now = pool ? find(*pool, tenant) : nullptr;
  if (now == nullptr) return refuse("trim", clean(tenant) + " has left the pool");
  fmt::print("{}: {}; {}\n", clean(tenant), from_to(charged_before, now->charged),
             what_stays(*pool, tenant, order));
  return 0;
}

int limit(const std::string& text, const ControlOptions& options) {
  const std::optional<Size> size = parse_some_pages(text);
  if (!size) {
    return complain(
        fmt::format("limit: {}: not a size of at least 2MiB; write e.g. 8GiB or 40%", shown(text)));
  }
  Place place;
  if (const int code = choose("limit", options, {}, place); code != 0) return code;
  const std::string why = ledger::change_pool(place.directory, place.gpu, *size, steady_clock());
  if (!why.empty()) return refuse("limit", why);
  const auto within = [&](const Snapshot& pool) { return pool.charged + pool.limbo <= pool.pool; };
  const auto pool = wait_until(options, place, within);
  if (!pool) return refuse("limit", "the pool is gone");
  fmt::print("{}: pool {} before, {} now; {}\n", ledger::to_string(place.gpu),
             show_size(place.pool.pool), show_size(pool->pool),
             from_to(place.pool.charged, pool->charged));
  if (!within(*pool)) {
    fmt::print("{}: above the limit; nobody grows, and it falls as engines free: {}\n",
               ledger::to_string(place.gpu), what_stays(*pool, {}));
  }
  return 0;
}

}  // namespace kvcached::tools
