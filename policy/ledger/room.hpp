// How much of the pool is really there. Its size is a wish, mostly a share of the GPU: weights,
// activations and programs outside the pool take from the same memory.
#pragma once

#include "policy/ledger/books.hpp"

namespace kvcached::ledger {

// Pages of the pool that cannot be granted: what the driver has free and what the pool holds
// already are all that it can ever have, less what is kept for members' plain memory to reach its
// high-water mark again.
constexpr Pages shortfall_of(Pages pool, Pages gpu_free, Pages held, Pages kept) noexcept {
  return pool.minus_clamped((gpu_free + held).minus_clamped(kept));
}

// What living members' plain memory is below the most that it was.
Pages kept_for_plain(const layout::File& file, Pages most) noexcept;

// Notes what `gpu_free`, as the driver has just said, means for the pool, in the file and in
// `books`, which are of now. Under the mutex. Pages that were given back after the driver was asked
// seem to be nowhere; so what is missing counts once it was missing twice in a row. Not while the
// GPU's size is unknown.
void note_shortfall(layout::File& file, Pages gpu_free, Books& books) noexcept;

}  // namespace kvcached::ledger
