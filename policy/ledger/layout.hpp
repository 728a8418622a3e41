// What lies in the pool's file. Every field is a lock-free atomic of fixed width, since processes
// built by different compilers share it. Whatever is read from here may be damaged: books.* and
// file.* check its range before anyone uses it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace kvcached::ledger::layout {

using U32 = std::atomic<std::uint32_t>;
using U64 = std::atomic<std::uint64_t>;
using I64 = std::atomic<std::int64_t>;
static_assert(U32::is_always_lock_free && sizeof(U32) == 4);
static_assert(U64::is_always_lock_free && sizeof(U64) == 8);
static_assert(I64::is_always_lock_free && sizeof(I64) == 8);

inline constexpr std::uint64_t kMagic = 0x6c6f6f7064766b01;  // "\1kvdpool" in little-endian bytes
inline constexpr std::uint32_t kVersion = 4;                 // also the end of the file's name
inline constexpr std::uint32_t kSlots = 256;
inline constexpr std::uint32_t kTenants = 256;  // one a slot suffices: a tenant without slots ends
inline constexpr std::uint64_t kMaxPoolPages = 1ULL << 40;
inline constexpr std::uint32_t kWaitBuckets = 32;
inline constexpr std::uint32_t kTakers = 6;     // of one tenant's memory, remembered by name
inline constexpr std::uint32_t kMoments = 600;  // of history, a second each
inline constexpr std::uint32_t kMomentTenants = 32;

// Bytes of the file that are locked to say who is there; it has nothing to do with their content.
inline constexpr std::int64_t kPresenceByte = 1;   // shared, by whoever has opened the pool
inline constexpr std::int64_t kLivenessByte = 64;  // plus the slot's number, by its member

// Zero-padded text, in words so that it can be read while it is being written.
template <std::size_t N>
struct Text {
  static_assert(N % 8 == 0);
  std::array<U64, N / 8> words;
};

struct alignas(128) Header {
  U64 magic;
  U32 version;
  U32 header_size;
  U32 slot_size;
  U32 slot_count;
  U32 tenant_size;
  U32 tenant_count;
  std::array<U64, 2> boot_id;  // positions and instants mean nothing after a reboot
  std::array<U64, 2> gpu;
  U64 pool_pages;
  U32 ready;       // 1; written last
  U32 slots_used;  // no slot from here on was ever taken: bounds the scans
  // What the driver had free plus what was charged, in pages, when last nobody was dead; plus 1,
  // so that 0 means never noted. See reap.hpp.
  U64 unexplained_base;
  U64 unconfirmed;  // pages that left limbo because time was up
  // As of the last plan. Contested: a claim of some tenant is open, so that grants follow the plan.
  U32 contested;
  U32 level;
  U64 shortfall;       // pages of the pool that are not there; see room.hpp
  U64 gpu_pages;       // all of the GPU's memory; 0: no member said
  U64 gpu_free;        // pages, as the driver last told a member; plus 1, so that 0 means never
  U64 last_moment;     // the second of the newest history, plus 1
  U64 shortfall_seen;  // as the last look found it
  std::array<U64, 12> spare;
};
static_assert(sizeof(Header) == 256);
static_assert(offsetof(Header, version) == 8 && offsetof(Header, ready) == 72);

// Pages that a tenant gave back while another waited for them.
struct Taker {
  U64 who;  // that other: its place and, above 32 bits, its generation; 0: nobody
  U64 pages;
};

// In use while a slot that is live or in limbo names it.
struct alignas(128) Tenant {
  Text<48> name;
  // Set by the first member, and changed by tools at any time.
  U64 min_pages;
  U64 max_pages;
  U32 weight;
  U32 min_refused;  // 1: the pool could not promise the minimum
  // What the last plan decided, and what the next one has to know of it; see policy/balance.hpp.
  U64 target;
  U64 reclaim;
  U64 reuse;
  I64 since;
  I64 queued;
  I64 turn_began;
  U64 aged;
  U32 generation;  // one more with every tenant in this place
  U32 trim;        // one more whenever its members should let go of all they hold idle
  // Since its first member came: sums to which every member adds, so that they outlive it.
  U64 grants;
  U64 granted;  // pages
  U64 short_grants;
  U64 waits_in_vain;  // that ended without a grant
  U64 reclaimed;      // pages given back while others waited for them
  U64 below_min;      // nanoseconds in which it was refused what its minimum covers
  U64 evicted;        // blocks that its engine had cached and dropped
  U64 warm_hits;
  U64 warm_misses;
  U64 warm_in_vain;
  std::array<U32, kWaitBuckets> waits;  // number i: shorter than 2^i us, and no shorter bucket's
  std::array<Taker, kTakers> takers;    // under the mutex
  std::array<U64, 9> spare;
};
static_assert(sizeof(Taker) == 16);
static_assert(sizeof(Tenant) == 512 && offsetof(Tenant, min_pages) == 48);
static_assert(offsetof(Tenant, generation) == 128 && offsetof(Tenant, waits) == 216);

enum class SlotState : std::uint32_t {
  free = 0,
  live = 1,
  limbo = 2,  // the member is dead, its charge is what the driver has yet to free
};

// All that a charge has to read of a slot, in one word: its state, above kStateShift; the place of
// its tenant, above kTenantShift; and the pages charged. Eight slots share a cache line, so that
// the sums are made of few lines although another processor wrote each of them last; and every
// change is a single store, which no death can cut in half. Changed under the mutex. The pages
// count in every state but free.
using Account = U64;
inline constexpr unsigned kTenantShift = 48;
inline constexpr unsigned kStateShift = 60;
static_assert(kMaxPoolPages < 1ULL << kTenantShift);
static_assert(kTenants <= 1U << (kStateShift - kTenantShift));

struct alignas(128) Slot {
  I64 limbo_since;  // nanoseconds of the monotonic clock; under the mutex, as the next
  U64 generation;   // one more with every member
  // Odd while the owner changes anything below.
  U32 sequence;
  U32 bell;  // one more whenever the member should look at its tenant's plan; a futex
  I64 pid;
  I64 want_since;  // nanoseconds; 0: nothing wanted
  U64 used;
  U64 warm;
  U64 want;
  U64 reserved;
  U64 short_grants;
  U64 grows;
  U64 releases;
  U64 fragmented;
  I64 heartbeat;  // nanoseconds; when the member last said something
  Text<64> command;
  Text<32> adapter;
  Text<160> adapter_state;
  Text<64> model;
  U32 layers;
  U32 kv_heads;
  U32 head_dim;
  U32 bytes_per_element;
  U32 max_seq_len;
  U32 block_tokens;
  U64 bytes_per_token;
  // Under the mutex, but for demand and stripe, which the owner publishes.
  U64 claim;  // pages that a request of the member waits for, with those kept ready for it
  I64 claim_since;
  U64 demand;  // what it uses, and has announced that it will
  U64 stripe;  // pages that it gives or takes at least; 0: it gives nothing back
  // Again the owner's, within `sequence`.
  U64 least;  // pages that one longest request takes
  U64 plain;  // bytes of the GPU that the pool knows nothing else of
  U64 plain_peak;
  U32 trimmed;        // the tenant's `trim` that it has obeyed
  U32 fitting;        // tokens of the longest request that fits, plus 1; 0: not told
  U64 pid_namespace;  // in which `pid` is this member; 0: not known
  std::array<U64, 13> spare;
};
static_assert(sizeof(Slot) == 640 && alignof(Slot) == 128);
static_assert(offsetof(Slot, generation) == 8 && offsetof(Slot, sequence) == 16);
static_assert(offsetof(Slot, command) == 112 && offsetof(Slot, model) == 368);

struct MomentTenant {
  U32 place;
  U32 generation;
  U32 charged;  // pages, as the next two
  U32 used;
  U32 want;
};

// The pool at one second, in the place `second` modulo kMoments. Written under the mutex by
// whichever member comes first in that second; odd while it is being written, and for ever if its
// writer died then.
struct alignas(64) Moment {
  U32 sequence;
  U32 tenants;
  U64 second;  // of the monotonic clock, plus 1
  U64 pool;    // pages, as the next five
  U64 charged;
  U64 limbo;
  U64 used;
  U64 want;
  U64 shortfall;
  std::array<MomentTenant, kMomentTenants> of;
};
static_assert(sizeof(MomentTenant) == 20 && sizeof(Moment) == 704);

struct File {
  Header header;
  std::array<Account, kSlots> accounts;  // of the slot with the same number
  std::array<Tenant, kTenants> tenants;
  std::array<Slot, kSlots> slots;
  std::array<Moment, kMoments> moments;
};
static_assert(offsetof(File, accounts) == 256);
static_assert(offsetof(File, tenants) == 256 + 256 * 8);
static_assert(offsetof(File, slots) == 256 + 256 * 8 + 256 * 512);
static_assert(offsetof(File, moments) == 256 + 256 * 8 + 256 * 512 + 256 * 640);
static_assert(sizeof(File) == 256 + 256 * 8 + 256 * 512 + 256 * 640 + 600 * 704);

inline constexpr std::size_t kFileSize = (sizeof(File) + 4095) / 4096 * 4096;

}  // namespace kvcached::ledger::layout
