// Between the pool's file and the balancing policy: the file's slots as the policy's records, and
// its decisions back into the file. All calls need the mutex on the file, but for the static ones.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "policy/balance.hpp"
#include "policy/ledger/books.hpp"
#include "policy/ledger/layout.hpp"

namespace kvcached::ledger {

// One plan under way. Large, so that it is kept and not put on a stack.
class Planning {
 public:
  // Whether grants have to follow a plan: somebody waited when the last one was made, or something
  // had to come back.
  static bool contested(const layout::File& file) noexcept;
  // Whether a member has not been heard of for so long that it is no use to wait for it.
  static bool silent(const layout::Slot& slot, Instant now) noexcept;

  // Reads the tenants with living members, and plans.
  void plan(const layout::File& file, const Books& books, Instant now) noexcept;
  // How many of `wanted` pages a tenant gets now; a piece less than its stripe is whole to it.
  Pages grantable(std::uint32_t tenant, Pages wanted) noexcept;
  // Of those who wait, the first in line; kTenants: nobody but `but` waits.
  std::uint32_t first_waiter(std::uint32_t but) noexcept;
  // Writes the decisions down, and rings for members that have something new to do: to give pages
  // back, or to take some that they wait for.
  void commit(layout::File& file) noexcept;

 private:
  std::span<balance::Tenant> tenants() noexcept { return {records_.data(), count_}; }
  balance::Tenant* find(std::uint32_t tenant) noexcept;
  void add_members(const layout::File& file, Pages most, Instant now) noexcept;

  balance::Pool pool_;
  std::array<balance::Tenant, layout::kTenants> records_;
  std::array<std::uint16_t, layout::kTenants> place_{};  // record of a tenant, plus 1
  std::size_t count_ = 0;
};

}  // namespace kvcached::ledger
