#include "shim/member/sequence.hpp"

#include <algorithm>
#include <utility>

#include "shim/log.hpp"
#include "shim/member/caches.hpp"
#include "shim/member/figures.hpp"

namespace kvcached::member {
namespace {

constexpr Duration kLongestUnseen = std::chrono::seconds(1);

}  // namespace

void Sequence::describe(const ledger::ModelShape& model) noexcept {
  const std::lock_guard telling(telling_);
  const std::lock_guard lock(mutex_);
  model_ = {Bytes(model.bytes_per_token), model.max_seq_len, model.block_tokens, {}, {}, {}};
  current_ = told_ = model.max_seq_len;
  seen_.reset();
}

SequenceNeed Sequence::model() const noexcept {
  const std::lock_guard lock(mutex_);
  return model_;
}

bool Sequence::described() const noexcept { return model().longest != 0; }

std::uint32_t Sequence::current() const noexcept {
  const std::lock_guard lock(mutex_);
  return current_;
}

std::uint32_t Sequence::fitting(std::optional<Pages> reach, const cache::Registry& registry,
                                driver::DeviceId device) noexcept {
  SequenceNeed need;
  {
    const std::lock_guard lock(mutex_);
    need = model_;
    if (reach) reach_ = reach;
    reach = reach_;
  }
  if (need.longest == 0 || !reach) return need.longest;
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(need.per_token.value, need.longest, &bytes)) bytes = ~0ULL;
  std::uint64_t caches = 0;
  const bool all = for_caches(registry, device, [&](const cache::Cache& cache) {
    const cache::CacheStats stats = cache.stats();
    need.least += least_of(stats, Bytes(bytes));
    need.pinned += stats.pinned;
    need.stripe += stats.stripe;
    ++caches;
  });
  if (!all) return current();
  // Each of them holds a part of every token, as large as all of it for all that is known.
  if (__builtin_mul_overflow(need.per_token.value, std::max<std::uint64_t>(caches, 1), &bytes))
    bytes = ~0ULL;
  need.per_token = Bytes(bytes);
  return fitting_tokens(need, *reach);
}

bool Sequence::look(std::optional<Pages> reach, std::size_t caches, Instant now,
                    const cache::Registry& registry, driver::DeviceId device) noexcept {
  const std::lock_guard telling(telling_);
  const std::uint32_t longest = model().longest;
  if (longest == 0 || (seen_ && seen_->reach == reach && seen_->caches == caches &&
                       now - seen_->at < kLongestUnseen)) {
    return false;
  }
  seen_ = Seen{reach, caches, now};
  const std::uint32_t fits = fitting(reach, registry, device);
  std::uint32_t before = 0;
  {
    const std::lock_guard lock(mutex_);
    before = std::exchange(current_, fits);
    reach = reach_;
  }
  // One line when it begins and one when it is over: in between it follows plain memory.
  if (before == longest && fits < longest) {
    warn("requests of more than {} of {} tokens cannot be held: the tenant can have {} MiB", fits,
         longest, bytes_of(reach.value_or(Pages())).value >> 20U);
  } else if (before < longest && fits == longest) {
    warn("requests of {} tokens can be held again", longest);
  } else if (before != fits) {
    inform("requests of up to {} of {} tokens can be held", fits, longest);
  }
  if (std::exchange(told_, fits) != fits) listener_.tell(fits);
  return before != fits;
}

void Sequence::on_change(std::function<void(std::uint32_t)> tell) noexcept {
  const std::lock_guard telling(telling_);
  listener_.set(std::move(tell));
  told_ = model().longest;
  seen_.reset();
}

}  // namespace kvcached::member
