// What is counted for a tenant. Every sum takes single atomic additions, mostly without the mutex:
// a death loses what was not added yet, and counts nothing twice.
#pragma once

#include "policy/ledger/layout.hpp"
#include "policy/ledger/state.hpp"

namespace kvcached::ledger {

// Under the mutex, while the tenant has no living member.
void clear_counters(layout::Tenant& tenant) noexcept;

// Any thread of any member.
void count_grant(layout::Tenant& tenant, Pages pages) noexcept;
void count_wait(layout::Tenant& tenant, Duration wait) noexcept;
void count_wait_in_vain(layout::Tenant& tenant) noexcept;
void count_below_min(layout::Tenant& tenant, Duration time) noexcept;
// What has grown in a member's figures since it last told them.
void count_figures(layout::Tenant& tenant, const Figures& before, const Figures& now) noexcept;

// Under the mutex: `pages` of the tenant at `giver` went while the one at `taker` waited.
void count_reclaimed(layout::File& file, std::uint32_t giver, std::uint32_t taker,
                     Pages pages) noexcept;

TenantCounters read_counters(const layout::File& file, const layout::Tenant& tenant);

// Who is meant by a place that may have a new tenant since; empty: gone.
std::string name_then(const layout::File& file, std::uint32_t place, std::uint32_t generation);

}  // namespace kvcached::ledger
