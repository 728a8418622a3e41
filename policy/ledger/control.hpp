// What a user changes in a pool while engines run. It is in force when the call returns; what it
// asks of the members they then do on their own, and the account shows how far they are.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "policy/changes.hpp"
#include "policy/clock.hpp"
#include "policy/ledger/state.hpp"
#include "policy/settings.hpp"

namespace kvcached::ledger {

// All calls answer an empty text, or in one line why nothing was changed: the file cannot be opened
// for writing, nobody has that name, or the values contradict what the pool has promised or what a
// member cannot do without. They wait a second for the pool's lock. No member's process is needed.

// min: a larger one must fit with all others into what is there of the pool. max: at least the
// minimum, and what one longest request of any member takes.
std::string change_limits(const std::string& directory, const GpuUuid& gpu, std::string_view tenant,
                          const LimitChange& change, const Clock& clock);

// Its members let go of all that they hold idle, once. `order`: what MemberState::trimmed will be
// when a member has obeyed.
std::string order_trim(const std::string& directory, const GpuUuid& gpu, std::string_view tenant,
                       std::uint32_t& order);

// At least the sum of all minimums, and what any tenant's longest request takes; at most what the
// GPU has, of which shares are meant. Needs a member in the pool; lasts until the last one has
// left.
std::string change_pool(const std::string& directory, const GpuUuid& gpu, const Size& size,
                        const Clock& clock);

}  // namespace kvcached::ledger
