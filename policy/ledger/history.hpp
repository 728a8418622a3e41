// The last ten minutes of a pool, a record a second, in a ring in its file.
#pragma once

#include "policy/ledger/books.hpp"
#include "policy/ledger/layout.hpp"
#include "policy/ledger/state.hpp"

namespace kvcached::ledger {

// Writes the record of this second, unless one is there. Under the mutex, which makes the caller
// the only writer and which a death gives back: what a dead writer left half-written stays odd
// until its place comes round again, and the next second has its own place.
void record_moment(layout::File& file, const Books& books, Instant now) noexcept;

// The records of the ten minutes before `now`, oldest first; takes no lock. Half-written ones, and
// what can be no record, are left out.
std::vector<Moment> read_moments(const layout::File& file, Instant now);

}  // namespace kvcached::ledger
