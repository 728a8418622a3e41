// What is shown of a pool: what its members say of themselves, what is counted for its tenants, and
// what the account adds up to. Amounts that were read from the file are in range.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "policy/clock.hpp"
#include "policy/units.hpp"

namespace kvcached::ledger {

using GpuUuid = std::array<std::uint8_t, 16>;

// "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", as the vendor's tools print it.
std::string to_string(const GpuUuid& uuid);

struct TenantLimits {
  Pages min;  // guaranteed; granted at join only if the pool can still promise it
  Pages max = Pages::max();
  std::uint32_t weight = 1;
};

struct ModelShape {
  std::string name;
  std::uint32_t layers = 0, kv_heads = 0, head_dim = 0, bytes_per_element = 0;
  std::uint32_t max_seq_len = 0, block_tokens = 0;
  std::uint64_t bytes_per_token = 0;
};

// What stripes kept warm were good for.
struct WarmScore {
  std::uint64_t hits = 0;     // taken when blocks were needed
  std::uint64_t misses = 0;   // had to be mapped while somebody waited
  std::uint64_t in_vain = 0;  // mapped ahead, and let go without having been used
};

// What a member says of itself; it alone writes these. What is counted only goes up.
struct Figures {
  Pages used;        // what live blocks take
  Pages fragmented;  // backed beside them: cannot go before they do
  Pages warm;        // backed, without a live block
  Pages want;        // asked for and not granted yet
  Bytes reserved;    // sizes of the elastic allocations the engine made
  // What it uses, and will use soon: as it has announced, or free blocks that its engine keeps for
  // its next steps. Of what is used and fragmented beyond that its engine has no use now: it can be
  // asked for it.
  Pages demand;
  Pages stripe;  // what it gives or takes at least; none: it cannot give anything back
  std::uint64_t short_grants = 0;
  std::uint64_t grows = 0;     // stripes or extents backed
  std::uint64_t releases = 0;  // stripes or extents released
  Pages least;                 // what one longest request takes, with what is never given back
  Bytes plain;                 // memory of the GPU beside the pool: weights, activations
  Bytes plain_peak;            // the most that was
  std::uint64_t evicted = 0;   // blocks that the engine had cached and dropped
  WarmScore stripes_kept;
  std::optional<std::uint32_t> fitting;  // tokens of its model's longest request that fits now
};

// Of the calling process, as the kernel numbers it; 0: not known.
std::uint64_t pid_namespace() noexcept;

struct MemberState {
  std::uint32_t slot = 0;
  std::uint64_t generation = 0;
  std::int64_t pid = 0;             // in the member's own PID namespace: for display only
  std::uint64_t pid_namespace = 0;  // the kernel's number for that; 0: not known
  bool alive = false;
  Instant heard{};            // when it last said something
  std::uint32_t trimmed = 0;  // the last order to trim that it obeyed
  std::string tenant;
  std::string command;
  std::string adapter;
  std::string adapter_state;
  Pages charged;
  Figures figures;
  ModelShape model;  // name empty: none registered
};

inline constexpr std::size_t kWaitBuckets = 32;
// Waits of bucket i are shorter than this, and not shorter than that of the bucket before. The last
// one has no bound.
constexpr Duration wait_bound(std::size_t bucket) {
  return std::chrono::microseconds(std::int64_t{1} << bucket);
}

// What a tenant's members met since the first of them came, those that are gone included.
struct TenantCounters {
  struct Taker {
    std::string tenant;  // empty: gone
    Pages pages;
  };

  std::uint64_t grants = 0;
  Pages granted;
  std::uint64_t short_grants = 0;
  std::array<std::uint32_t, kWaitBuckets> waits{};  // from the refusal to the last grant
  std::uint64_t waits_in_vain = 0;                  // given up without a grant
  Pages reclaimed;                                  // given back while others waited
  std::vector<Taker> takers;                        // for whom: the largest; most first
  Duration below_min{};                             // refused what its minimum covers; must stay 0
  std::uint64_t evicted = 0;
  WarmScore stripes_kept;
};

struct TenantState {
  std::string name;
  TenantLimits limits;
  bool min_admitted = true;  // false: the pool could not promise the minimum when it joined
  Pages charged;             // sum over its living members
  Pages least;               // what the longest request of any of them takes
  std::uint32_t trim = 0;    // the last order to trim
  TenantCounters counters;
};

struct Snapshot {
  GpuUuid gpu{};
  Pages pool;
  Pages charged;      // by the living
  Pages limbo;        // of the dead, until the driver has freed it
  Pages shortfall;    // of the pool: not there, because of plain memory and what is outside
  Pages free;         // pool - shortfall - charged - limbo; 0 while it holds more than that
  Pages unconfirmed;  // left limbo after 5 s, not seen free; the sum since the pool was made
  // The whole GPU; none: no member has said. Its free memory is as the driver last told a member;
  // none once nobody lives to be told.
  std::optional<Pages> gpu_total;
  std::optional<Pages> gpu_free;
  std::vector<TenantState> tenants;
  std::vector<MemberState> members;

  Bytes plain() const;  // of all living members
  // Neither free, nor the pool's, nor anyone's plain memory: contexts, and programs not in the
  // pool.
  std::optional<Bytes> unexplained() const;
};

// Tokens of the longest request that a member's tenant can ever hold: as the member says, which
// knows its caches, else by what the tenant can ever have.
std::uint64_t covered_tokens(const Snapshot& pool, const MemberState& member) noexcept;

// The pool as it was within one second.
struct Moment {
  struct Tenant {
    std::string name;  // empty: gone since
    Pages charged;
    Pages used;
    Pages want;
  };

  std::int64_t second = 0;  // of the monotonic clock
  Pages pool;
  Pages charged;
  Pages limbo;
  Pages free;
  Pages used;
  Pages want;
  std::vector<Tenant> tenants;  // those with the most, where there are many
};

struct History {
  GpuUuid gpu{};
  std::vector<Moment> moments;  // oldest first, at most ten minutes old; seconds may be missing
};

}  // namespace kvcached::ledger
