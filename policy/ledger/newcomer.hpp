// A place for a new member: its slot, its tenant, the tenant's limits. All under the mutex.
#pragma once

#include <cstdint>
#include <string_view>

#include "policy/ledger/books.hpp"
#include "policy/ledger/file.hpp"

namespace kvcached::ledger {

// A free slot, its liveness byte now locked; the lowest, so that scans stay short. kSlots when all
// are taken.
std::uint32_t take_slot(const PoolFile& file) noexcept;

// The tenant of that name if a slot still uses it, else one that none uses.
std::uint32_t place_for(const layout::File& file, std::string_view tenant) noexcept;

// Writes the tenant's limits if it has no living member, also after a crash whose limbo still
// bears the name; else leaves those that its first member brought.
void admit(layout::File& file, std::uint32_t tenant, const JoinRequest& request, PoolSize size,
           Books& scratch) noexcept;

}  // namespace kvcached::ledger
