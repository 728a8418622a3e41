#include "policy/ledger/control.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

#include "policy/ledger/bell.hpp"
#include "policy/ledger/books.hpp"
#include "policy/ledger/file.hpp"
#include "policy/ledger/planning.hpp"
#include "policy/ledger/reap.hpp"
#include "policy/ledger/test_points.hpp"

namespace kvcached::ledger {
namespace {

std::string mib(Pages pages) { return std::to_string(bytes_of(pages).value >> 20) + "MiB"; }

// An amount as the user wrote it, not rounded to pages; a share by what it comes to.
std::string written(const std::optional<Size>& size, Pages pages) {
  if (!size || size->is_share) return pages ? mib(pages) : "less than a page";
  const std::uint64_t bytes = size->bytes.value;
  return bytes % (1 << 20) == 0 ? std::to_string(bytes >> 20) + "MiB" : std::to_string(bytes) + "B";
}

// One pool, open and locked from `open` to the end of its life.
class Change {
 public:
  std::string open(const std::string& directory, const GpuUuid& gpu) {
    const PoolFile folder(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const std::string name = file_name(gpu);
    bool locked = false;
    std::string wrong = open_as_it_is(folder.descriptor(), name, true, file_, locked);
    if (!wrong.empty()) return "pool " + directory + "/" + name + ": " + wrong;
    // The dead promise nothing any more, whether somebody has noticed or not.
    read_books(file(), size_of(file()), find_dead(file_, layout::kSlots), *books_);
    return {};
  }

  // kTenants: nobody of that name lives.
  std::uint32_t find(std::string_view tenant) const {
    for (std::uint32_t i = 0; i < books_->tenants_end; ++i) {
      if (books_->tenants[i].living && is_named(file().tenants[i], tenant)) return i;
    }
    return layout::kTenants;
  }

  bool lived_in() const {
    const auto end = books_->tenants.begin() + books_->tenants_end;
    return std::any_of(books_->tenants.begin(), end, [](const TenantBook& t) { return t.living; });
  }

  // What the longest request of a tenant's members takes.
  Pages least(std::uint32_t tenant) const {
    Pages most;
    const std::uint32_t end = slots_end(file());
    for (std::uint32_t k = 0; k < end; ++k) {
      const layout::Slot& slot = file().slots[k];
      const bool its = tenant_of_living(file(), k) == tenant &&
                       file_.locked_elsewhere(layout::kLivenessByte + k);
      if (its) most = std::max(most, std::min(Pages(slot.least.load()), books_->most));
    }
    return most;
  }

  // Plans with the new values and wakes all members, also those that sleep.
  void carry_out(const Clock& clock) {
    read_books(file(), size_of(file()), {}, *books_);
    const auto planning = std::make_unique<Planning>();
    planning->plan(file(), *books_, clock.now());
    planning->commit(file());
    wake_all();
  }
  void wake_all() {
    const std::uint32_t end = slots_end(file());
    for (std::uint32_t k = 0; k < end; ++k) {
      if (account_of(file(), k, {}).state == layout::SlotState::live) ring(file().slots[k].bell);
    }
  }

  layout::File& file() { return *file_.mapped(); }
  const layout::File& file() const { return *file_.mapped(); }
  const Books& books() const { return *books_; }

 private:
  PoolFile file_;
  std::unique_ptr<Books> books_ = std::make_unique<Books>();
};

std::string unknown(std::string_view tenant) {
  return "no tenant of this pool is named " + std::string(tenant) + "; kvcached stat lists them";
}

// Empty, or why a tenant cannot have these limits.
std::string refuse(const Change& pool, std::uint32_t tenant, const TenantLimits& wanted,
                   const LimitChange& change) {
  const std::string name = name_of(pool.file().tenants[tenant]);
  const Pages size = pool.books().pool;
  const Pages there = pool.books().there();
  const Pages before = pool.books().tenants[tenant].min;
  const Pages others = pool.books().promised() - before;
  // A promise that could not be kept may be made smaller, though not as small as it should be.
  if (change.min && wanted.min > std::max(there.minus_clamped(others), before)) {
    const std::string lacks =
        there < size ? ", of which plain memory leaves " + mib(there) : std::string();
    return name + ": min=" + written(change.min, wanted.min) + " with the other minimums of " +
           mib(others) + " exceeds the pool of " + mib(size) + lacks + "; write at most " +
           mib(there.minus_clamped(others));
  }
  if (change.max && !wanted.max) return name + ": max: less than a page; write at least 2MiB";
  if (wanted.min > wanted.max) {
    return name + ": min=" + written(change.min, wanted.min) +
           " is above max=" + written(change.max, wanted.max) +
           "; change both or write at most the maximum";
  }
  const Pages least = std::min(pool.least(tenant), size);
  if (change.max && wanted.max < least) {
    return name + ": max=" + written(change.max, wanted.max) +
           " is less than one longest request takes; write at "
           "least " +
           mib(least);
  }
  return {};
}

}  // namespace

std::string change_limits(const std::string& directory, const GpuUuid& gpu, std::string_view tenant,
                          const LimitChange& change, const Clock& clock) {
  Change pool;
  if (std::string wrong = pool.open(directory, gpu); !wrong.empty()) return wrong;
  const std::uint32_t place = pool.find(tenant);
  if (place == layout::kTenants) return unknown(tenant);
  const Bytes size = bytes_of(pool.books().pool);
  layout::Tenant& entry = pool.file().tenants[place];
  TenantLimits wanted = limits_of(entry, pool.books().pool);
  if (change.min)
    wanted.min = std::min(pages_up(change.min->of(size)), Pages(layout::kMaxPoolPages));
  if (change.max) wanted.max = std::min(pages_down(change.max->of(size)), pool.books().pool);
  if (change.weight) wanted.weight = *change.weight;
  if (std::string wrong = refuse(pool, place, wanted, change); !wrong.empty()) return wrong;

  // Each store leaves limits that hold, should it be the last.
  if (change.max) {
    const bool all = wanted.max == pool.books().pool;
    set(entry.max_pages, all ? layout::kMaxPoolPages : wanted.max.value);
    test_point("set.half");
  }
  if (change.min) {
    set(entry.min_pages, wanted.min.value);
    set(entry.min_refused, 0U);
  }
  if (change.weight) set(entry.weight, wanted.weight);
  test_point("set.unplanned");
  pool.carry_out(clock);
  return {};
}

std::string order_trim(const std::string& directory, const GpuUuid& gpu, std::string_view tenant,
                       std::uint32_t& order) {
  Change pool;
  if (std::string wrong = pool.open(directory, gpu); !wrong.empty()) return wrong;
  const std::uint32_t place = pool.find(tenant);
  if (place == layout::kTenants) return unknown(tenant);
  layout::U32& trim = pool.file().tenants[place].trim;
  order = trim.load() + 1;
  set(trim, order);
  pool.wake_all();
  return {};
}

std::string change_pool(const std::string& directory, const GpuUuid& gpu, const Size& size,
                        const Clock& clock) {
  Change pool;
  if (std::string wrong = pool.open(directory, gpu); !wrong.empty()) return wrong;
  const Pages total(pool.file().header.gpu_pages.load());
  if (size.is_share && !total) {
    return "a share needs the GPU's size, which no member of this pool has told; write a size";
  }
  const Pages wanted = std::min(pages_down(size.of(bytes_of(total))), Pages(layout::kMaxPoolPages));
  const Pages most = total ? std::min(total, pool.books().most) : pool.books().most;
  if (!wanted || wanted > most) {
    return "a pool of " + written(size, wanted) + " is not possible; write from 2MiB to " +
           mib(most);
  }
  if (!pool.lived_in()) return "no process is in this pool; the first one will decide its size";
  const Pages promised = pool.books().promised();
  if (wanted < promised) {
    return "a pool of " + written(size, wanted) + " does not cover the minimums; write at least " +
           mib(promised) + " or lower them first";
  }
  for (std::uint32_t i = 0; i < pool.books().tenants_end; ++i) {
    if (!pool.books().tenants[i].living || pool.least(i) <= wanted) continue;
    return "a pool of " + written(size, wanted) + " is less than one longest request of " +
           name_of(pool.file().tenants[i]) + " takes; write at least " + mib(pool.least(i));
  }
  const Pages there = pool.books().there();
  const bool short_of = there < pool.books().pool;
  set(pool.file().header.pool_pages, wanted.value);
  test_point("limit.unplanned");
  // Less was there than the old size, so as much is there of the new one. Were it left to the next
  // looks, memory would be asked back meanwhile that nobody lacks.
  const Pages lacking = short_of ? wanted.minus_clamped(there) : Pages();
  set(pool.file().header.shortfall_seen, lacking.value);
  set(pool.file().header.shortfall, lacking.value);
  pool.carry_out(clock);
  return {};
}

}  // namespace kvcached::ledger
