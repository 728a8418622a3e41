// The account as tools show it.
#pragma once

#include "policy/ledger/books.hpp"
#include "policy/ledger/file.hpp"

namespace kvcached::ledger {

// The numbers of one moment, taken under the mutex; small and without allocation, so that the
// mutex is held for microseconds.
struct Numbers {
  Books books;
  SlotSet dead;
  std::array<SlotAccount, layout::kSlots> accounts{};
};

// `own`: the slot of the asking member, kSlots if none. Of the living, only `suspects` can be dead.
void read_numbers(const PoolFile& file, std::uint32_t own, const SlotSet& suspects, PoolSize size,
                  Numbers& numbers) noexcept;

// Adds names and figures, which need no mutex.
Snapshot complete(const layout::File& file, const Numbers& numbers);

}  // namespace kvcached::ledger
