// Reading and writing the mapped file: everything that comes out of here is in range.
#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>

#include "policy/ledger/grant.hpp"
#include "policy/ledger/layout.hpp"
#include "policy/ledger/ledger.hpp"

namespace kvcached::ledger {

using SlotSet = std::bitset<layout::kSlots>;

// No slot from here on was ever taken.
std::uint32_t slots_end(const layout::File& file) noexcept;

// What an account says of its slot.
struct SlotAccount {
  layout::SlotState state = layout::SlotState::free;  // also if it is none of the known ones
  std::uint32_t tenant = 0;                           // its place; kTenants: none that there is
  Pages charged;
};

SlotAccount account_of(const layout::File& file, std::uint32_t slot, Pages most) noexcept;
// One store. pre: amount and tenant are in range.
void set_account(layout::File& file, std::uint32_t slot, const SlotAccount& account) noexcept;
// The tenant's place of a slot whose member lives, or is not buried yet; else kTenants.
std::uint32_t tenant_of_living(const layout::File& file, std::uint32_t slot) noexcept;

// `most` is what this process knows for sure; without it, what the file says of the GPU.
PoolSize size_of(const layout::File& file, Pages most) noexcept;
PoolSize size_of(const layout::File& file) noexcept;

// All sums, computed anew. Members in `dead` count as limbo though their slot says live. Call it
// under the mutex, else the sums may be of different moments.
void read_books(const layout::File& file, PoolSize size, const SlotSet& dead,
                Books& books) noexcept;

// Asks for the cache lines of the accounts below `end`, to write `own`: they come while the mutex
// is being taken, and nobody has to wait for them under it. Touches nothing, so that the file need
// not be intact.
void draw_near(const layout::File& file, std::uint32_t own, std::uint32_t end) noexcept;

TenantLimits limits_of(const layout::Tenant& tenant, Pages pool) noexcept;
std::string name_of(const layout::Tenant& tenant);
bool is_named(const layout::Tenant& tenant, std::string_view name) noexcept;
void set_name(layout::Tenant& tenant, std::string_view name) noexcept;

// What the owner says of itself, of one moment unless the owner died or stopped while writing.
// Fills all but slot, alive, tenant and charged.
void read_texts(const layout::Slot& slot, MemberState& member);

// Brackets the owner's changes, so that readers notice them. Stores must be done by `set`.
class SlotChange {
 public:
  explicit SlotChange(layout::Slot& slot) noexcept;
  ~SlotChange();
  SlotChange(const SlotChange&) = delete;
  SlotChange& operator=(const SlotChange&) = delete;

 private:
  layout::Slot& slot_;
  std::uint32_t odd_;
};

// A release store, so that whoever sees the value sees that a change had begun.
template <class T>
void set(std::atomic<T>& cell, T value) noexcept {
  cell.store(value, std::memory_order_release);
}
// Texts are cut to what fits, with a zero at the end.
void set_command(layout::Slot& slot, std::string_view text) noexcept;
void set_adapter(layout::Slot& slot, std::string_view name, std::string_view state) noexcept;
void set_model(layout::Slot& slot, std::string_view name, const ModelShape& shape) noexcept;
void clear_texts(layout::Slot& slot) noexcept;

}  // namespace kvcached::ledger
