#include "shim/cache/stripe_index.hpp"

namespace kvcached::cache {

StripeIndex::StripeIndex(std::size_t stripes) : place_(stripes, kNowhere) {
  sets_.fill(IndexSet(stripes));
}

void StripeIndex::put_partial(std::size_t stripe, std::uint64_t live,
                              std::uint64_t count) noexcept {
  put(stripe, static_cast<std::uint8_t>(live * kFullness / count));
}

std::size_t StripeIndex::to_acquire() const noexcept {
  for (std::size_t fullness = kFullness; fullness-- > 0;) {
    if (!sets_[fullness].empty()) return sets_[fullness].first();
  }
  if (!sets_[kVacant].empty()) return sets_[kVacant].first();
  return sets_[kDraining].first();
}

void StripeIndex::put(std::size_t stripe, std::uint8_t place) noexcept {
  if (place_[stripe] != kNowhere) sets_[place_[stripe]].erase(stripe);
  place_[stripe] = place;
  if (place != kNowhere) sets_[place].insert(stripe);
}

}  // namespace kvcached::cache
