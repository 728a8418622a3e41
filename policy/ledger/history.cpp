#include "policy/ledger/history.hpp"

#include <algorithm>
#include <limits>

#include "policy/ledger/counters.hpp"
#include "policy/ledger/test_points.hpp"

namespace kvcached::ledger {
namespace {

constexpr int kReadTries = 4;

std::uint64_t second_of(Instant now) noexcept {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(now.time_since_epoch()).count();
  return static_cast<std::uint64_t>(std::max<std::int64_t>(seconds, 0));
}

std::uint32_t narrow(Pages pages) noexcept {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(std::min(pages.value, kMost));
}

Pages of(const layout::U64& cell) noexcept {
  return Pages(std::min(cell.load(std::memory_order_acquire), layout::kMaxPoolPages));
}

Pages of(const layout::U32& cell) noexcept { return Pages(cell.load(std::memory_order_acquire)); }

struct Use {
  Pages used;
  Pages want;
};

// What the members say of themselves, in a pool where nothing is more than `most`.
std::array<Use, layout::kTenants> add_members(const layout::File& file, Pages most) noexcept {
  std::array<Use, layout::kTenants> sums{};
  const std::uint32_t end = slots_end(file);
  for (std::uint32_t k = 0; k < end; ++k) {
    const layout::Slot& slot = file.slots[k];
    const std::uint32_t tenant = tenant_of_living(file, k);
    if (tenant >= sums.size()) continue;
    sums[tenant].used += std::min(of(slot.used), most);
    sums[tenant].want += std::min(of(slot.want), most);
  }
  return sums;
}

// The tenants with the most, when there are more than fit.
class Places {
 public:
  void add(std::uint32_t place, Pages charged) noexcept {
    if (count_ < most_.size()) {
      most_[count_++] = {place, charged};
      return;
    }
    const auto least = std::min_element(most_.begin(), most_.end(), [](const One& a, const One& b) {
      return a.charged < b.charged;
    });
    if (least->charged < charged) *least = {place, charged};
  }
  std::uint32_t count() const noexcept { return count_; }
  std::uint32_t operator[](std::uint32_t i) const noexcept { return most_[i].place; }

 private:
  struct One {
    std::uint32_t place;
    Pages charged;
  };
  std::array<One, layout::kMomentTenants> most_{};
  std::uint32_t count_ = 0;
};

// False: not a record of the place that it lies in, or one that is being written.
bool read_moment(const layout::File& file, std::uint32_t place, Moment& out) {
  const layout::Moment& moment = file.moments[place];
  for (int i = 0; i < kReadTries; ++i) {
    const std::uint32_t before = moment.sequence.load(std::memory_order_acquire);
    if (before % 2 != 0) continue;
    const std::uint64_t second = moment.second.load(std::memory_order_acquire);
    if (second == 0 || second > std::numeric_limits<std::int64_t>::max() ||
        (second - 1) % layout::kMoments != place) {
      return false;
    }
    out = Moment{};
    out.second = static_cast<std::int64_t>(second - 1);
    out.pool = of(moment.pool);
    out.charged = of(moment.charged);
    out.limbo = of(moment.limbo);
    const Pages there = out.pool.minus_clamped(of(moment.shortfall));
    out.free = there.minus_clamped(out.charged).minus_clamped(out.limbo);
    out.used = of(moment.used);
    out.want = of(moment.want);
    test_point("history.read");
    const std::uint32_t tenants =
        std::min(moment.tenants.load(std::memory_order_acquire), layout::kMomentTenants);
    for (std::uint32_t k = 0; k < tenants; ++k) {
      const layout::MomentTenant& one = moment.of[k];
      out.tenants.push_back({name_then(file, one.place.load(std::memory_order_acquire),
                                       one.generation.load(std::memory_order_acquire)),
                             of(one.charged), of(one.used), of(one.want)});
    }
    if (moment.sequence.load(std::memory_order_relaxed) == before) return true;
  }
  return false;
}

}  // namespace

void record_moment(layout::File& file, const Books& books, Instant now) noexcept {
  const std::uint64_t second = second_of(now);
  if (file.header.last_moment.load() == second + 1) return;
  const auto use = add_members(file, books.most);
  Use all;
  Places places;
  for (std::uint32_t i = 0; i < books.tenants_end; ++i) {
    if (!books.tenants[i].living) continue;
    places.add(i, books.tenants[i].charged);
    all.used += use[i].used;
    all.want += use[i].want;
  }
  layout::Moment& moment = file.moments[second % layout::kMoments];
  const std::uint32_t odd = moment.sequence.load(std::memory_order_relaxed) | 1U;
  moment.sequence.store(odd, std::memory_order_relaxed);
  set(moment.second, second + 1);
  set(moment.pool, books.pool.value);
  set(moment.charged, books.charged.value);
  test_point("history.half");
  set(moment.limbo, books.limbo.value);
  set(moment.shortfall, books.shortfall.value);
  set(moment.used, all.used.value);
  set(moment.want, all.want.value);
  for (std::uint32_t k = 0; k < places.count(); ++k) {
    const std::uint32_t i = places[k];
    layout::MomentTenant& one = moment.of[k];
    set(one.place, i);
    set(one.generation, file.tenants[i].generation.load());
    set(one.charged, narrow(books.tenants[i].charged));
    set(one.used, narrow(use[i].used));
    set(one.want, narrow(use[i].want));
  }
  set(moment.tenants, places.count());
  set(moment.sequence, odd + 1);
  test_point("history.written");
  set(file.header.last_moment, second + 1);
}

std::vector<Moment> read_moments(const layout::File& file, Instant now) {
  const auto newest = static_cast<std::int64_t>(second_of(now));
  std::vector<Moment> moments;
  for (std::uint32_t place = 0; place < layout::kMoments; ++place) {
    Moment moment;
    if (!read_moment(file, place, moment)) continue;
    const bool recent = moment.second <= newest && newest - moment.second < layout::kMoments;
    if (recent) moments.push_back(std::move(moment));
  }
  std::sort(moments.begin(), moments.end(),
            [](const Moment& a, const Moment& b) { return a.second < b.second; });
  return moments;
}

}  // namespace kvcached::ledger
