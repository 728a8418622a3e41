// What becomes of the pages of members that died.
//
// The kernel tells of a death (the lock on the liveness byte is gone) before the driver has freed
// the dead process's memory. Its pages wait in limbo until the driver's free memory proves that
// they are there again. Two proofs count:
//
//   1. The GPU has free what the pool would have free with the limbo returned. Whatever else
//      uses the GPU, every page that the pool could then grant is there.
//   2. The GPU's free memory has grown by the limbo since the death. Members grow and shrink
//      meanwhile, so what counts is the sum of the driver's free pages and all charges: it
//      moves only with memory that the ledger does not explain. The sum is noted in the file while
//      nobody is dead, and is taken down with it while someone is, so that a plain allocation in
//      between does not hide the return for good. Seven eighths of the limbo suffice: charges in
//      flight (booked but not yet made, or freed and not yet booked) blur the sum.
//
// Plain memory of the dead that is freed first can be taken for the limbo; that is harmless,
// since the pages are as free for the pool. Growth that nobody can see (someone else took the
// memory at once) is given up on after 5 s: the limbo goes unconfirmed, and the file counts it.
#pragma once

#include <optional>

#include "policy/ledger/books.hpp"
#include "policy/ledger/file.hpp"

namespace kvcached::ledger {

inline constexpr Duration kLimboPatience = std::chrono::seconds(5);

// All on a mapping just found intact; all but find_dead under the mutex.

// Of the living slots in `among`, those whose liveness byte nobody holds. `own` is never among
// them: the lock is ours. A system call for each, so that it is asked before the mutex is taken
// where that can be. Without the mutex the answer is a suspicion: the slot may be somebody's since.
SlotSet find_dead(const PoolFile& file, std::uint32_t own,
                  const SlotSet& among = SlotSet().set()) noexcept;

// Moves the charges of dead members to limbo, and repairs what they left half-written.
void bury_dead(const PoolFile& file, std::uint32_t own, const SlotSet& suspects,
               Instant now) noexcept;

// Lets go of limbo that is proven free or older than kLimboPatience. `gpu_free` is what the
// driver has free; without it only time counts. Returns what stays.
Pages settle_limbo(layout::File& file, PoolSize size, std::optional<Pages> gpu_free, Instant now,
                   Books& scratch) noexcept;

}  // namespace kvcached::ledger
