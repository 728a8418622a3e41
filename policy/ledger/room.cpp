#include "policy/ledger/room.hpp"

#include <algorithm>

namespace kvcached::ledger {

Pages kept_for_plain(const layout::File& file, Pages most) noexcept {
  Pages sum;
  const std::uint32_t end = slots_end(file);
  for (std::uint32_t k = 0; k < end; ++k) {
    if (account_of(file, k, {}).state != layout::SlotState::live) continue;
    const layout::Slot& slot = file.slots[k];
    const Bytes peak(std::min(slot.plain_peak.load(), bytes_of(most).value));
    sum += pages_up(peak.minus_clamped(Bytes(slot.plain.load())));
  }
  return std::min(sum, most);
}

void note_shortfall(layout::File& file, Pages gpu_free, Books& books) noexcept {
  layout::Header& header = file.header;
  Pages found;
  if (header.gpu_pages.load() != 0) {
    found = shortfall_of(books.pool, std::min(gpu_free, books.most), books.charged + books.limbo,
                         kept_for_plain(file, books.most));
  }
  books.shortfall = std::min(found, Pages(header.shortfall_seen.load()));
  set(header.shortfall_seen, found.value);
  set(header.shortfall, books.shortfall.value);
}

}  // namespace kvcached::ledger
