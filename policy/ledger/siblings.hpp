// Processes of one tenant among themselves: what one of them waits for, the others give. In a plan
// a tenant is one: what they hold idle counts as kept for the claim, so that nobody else is asked.
#pragma once

#include <cstdint>

#include "policy/clock.hpp"
#include "policy/ledger/books.hpp"

namespace kvcached::ledger {

// Of a living member. It knows both for itself: what the file says of them may be damaged.
struct Place {
  std::uint32_t slot;
  std::uint32_t tenant;
};

// Whether another process of its tenant waits, as far as that can be heard.
bool sibling_waits(const layout::File& file, Place own, Instant now) noexcept;

// What `own` is to give to them: its part of what they lack and the pool has not got free for their
// tenant, nor could ever let it have. Who waits itself gives to those that have waited longer, or
// two would give in turns. With books of now, though perhaps read without the lock.
Pages due_to_siblings(const layout::File& file, const Books& books, Place own,
                      Instant now) noexcept;

// `own`'s part of what a plan asks of its tenant; `most` that any amount in the file can be. Of
// what is to be given back, by what each of them holds idle.
Pages part_of_reclaim(const layout::File& file, Pages reclaim, Place own, Pages most,
                      Instant now) noexcept;
// Of what may be in use, by what each uses, and waits for if it is the first to wait. What those
// use that give nothing, or cannot be heard, comes first.
Pages part_of_reuse(const layout::File& file, Pages reuse, Place own, Pages most,
                    Instant now) noexcept;

}  // namespace kvcached::ledger
