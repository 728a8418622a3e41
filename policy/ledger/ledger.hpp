// The account of one GPU's pool, shared by all processes on it: who is charged what. One instance
// is one process's membership.
//
// The account lives in a file that every member maps. Whoever changes the account holds the byte
// lock of the file; whoever is a member holds the byte lock of its slot for life, and the kernel
// drops it with the process. No totals are stored: free is always computed from the slots.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "policy/clock.hpp"
#include "policy/units.hpp"

namespace kvcached::ledger {

using GpuUuid = std::array<std::uint8_t, 16>;

// "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", as the vendor's tools print it.
std::string to_string(const GpuUuid& uuid);

struct OpenRequest {
  std::string directory;  // created (mode 0700) when missing
  GpuUuid gpu{};
  Pages pool;  // counts only for the member that creates the pool
};

struct TenantLimits {
  Pages min;  // guaranteed; granted at join only if the pool can still promise it
  Pages max = Pages::max();
  std::uint32_t weight = 1;
};

struct JoinRequest {
  std::string_view tenant;   // shared by all processes of one engine; cut to 47 characters
  TenantLimits limits;       // the tenant's first process decides, the others' are ignored
  std::string_view command;  // for display
};

struct ModelShape {
  std::string name;
  std::uint32_t layers = 0, kv_heads = 0, head_dim = 0, bytes_per_element = 0;
  std::uint32_t max_seq_len = 0, block_tokens = 0;
  std::uint64_t bytes_per_token = 0;
};

// What a member says of itself; it alone writes these.
struct Figures {
  Pages used;        // what live blocks take
  Pages fragmented;  // backed beside them: cannot go before they do
  Pages warm;        // backed, without a live block
  Pages want;        // asked for and not granted yet
  Bytes reserved;    // sizes of the elastic allocations the engine made
  Pages demand;      // forecast of what it will use
  Pages stripe;      // what it gives or takes at least; none: it cannot give anything back
  std::uint64_t short_grants = 0;
  std::uint64_t grows = 0;     // stripes or extents backed
  std::uint64_t releases = 0;  // stripes or extents released
};

struct Duty {
  Pages reclaim;               // to be given back, by the tenant's members together
  Pages reuse = Pages::max();  // not more may be in use without a new grant
};

struct MemberState {
  std::uint32_t slot = 0;
  std::uint64_t generation = 0;
  std::int64_t pid = 0;  // in the member's own PID namespace: for display only
  bool alive = false;
  std::string tenant;
  std::string command;
  std::string adapter;
  std::string adapter_state;
  Pages charged;
  Figures figures;
  ModelShape model;  // name empty: none registered
};

struct TenantState {
  std::string name;
  TenantLimits limits;
  bool min_admitted = true;  // false: the pool could not promise the minimum when it joined
  Pages charged;             // sum over its living members
};

struct Snapshot {
  GpuUuid gpu{};
  Pages pool;
  Pages charged;      // by the living
  Pages limbo;        // of the dead, until the driver has freed it
  Pages free;         // pool - charged - limbo
  Pages unconfirmed;  // left limbo after 5 s, not seen free; the sum since the pool was made
  std::vector<TenantState> tenants;
  std::vector<MemberState> members;
};

// Why a ledger cannot be used; `ok` is none of them.
enum class Refusal : std::uint8_t { ok, unreachable, foreign, version, damaged, full };

class Ledger {
 public:
  virtual ~Ledger() = default;  // leaves the pool: whatever is still charged goes to limbo

  // Opens the pool's file in the directory, creating both when missing. Null on refusal, with one
  // line for the log in `complaint`, naming path, what is wrong and what would mend it.
  static std::unique_ptr<Ledger> open(const OpenRequest& request, const Clock& clock,
                                      Refusal& refusal, std::string& complaint);

  // Takes a slot. False when all are taken. Must be called once, before charge.
  virtual bool join(const JoinRequest& request, std::string& complaint) noexcept = 0;

  // Charges all of `pages` or none. While nobody waits: first come, first served, except that other
  // tenants' minimums stay reserved and the own maximum holds. Otherwise as the plan says (see
  // policy/balance.hpp). `wish`: a request waits until so many pages are without a live block,
  // those that are so already included; refused, that becomes the member's claim, and others are
  // asked to give back what they hold idle. A claim lasts until drop_claim, though one that is met
  // asks for nothing. Waits at most 50 ms for a stopped lock holder, then refuses without waiting
  // until the lock is free again.
  virtual bool charge(Pages pages, Pages wish) noexcept = 0;
  bool charge(Pages pages) noexcept { return charge(pages, {}); }
  virtual void drop_claim() noexcept = 0;
  // What the plan asks of the own tenant. Takes no lock.
  virtual Duty duty() const noexcept = 0;
  // Rung when there is a new duty, or pages that a claim of this process may have. `rung` counts;
  // `wait` returns once it is no longer `seen`, is rung by wake(), or time is up.
  virtual std::uint32_t rung() const noexcept = 0;
  virtual void wait(std::uint32_t seen, Duration most) const noexcept = 0;
  virtual void wake() noexcept = 0;  // any thread; async-signal-safe
  // Never fails and never waits longer than charge does: what could not be booked because the lock
  // was held is booked with the next call (the account overstates until then).
  virtual void uncharge(Pages pages) noexcept = 0;
  virtual Pages charged() const noexcept = 0;

  // Less in use than before is planned with at once, if somebody waits.
  virtual void publish(const Figures& figures) noexcept = 0;
  virtual void describe_model(const ModelShape& model) noexcept = 0;
  virtual void report_adapter(std::string_view adapter, std::string_view state) noexcept = 0;

  // Moves the pages of dead members to limbo, and out of limbo when `gpu_free` (what the driver
  // says is free on the GPU now) shows that the driver has freed them, or after 5 s. Returns what
  // is still in limbo.
  virtual Pages reap(Bytes gpu_free) noexcept = 0;

  virtual Pages pool() const noexcept = 0;
  virtual TenantLimits limits() const noexcept = 0;  // of the own tenant, as the pool holds them
  virtual Snapshot snapshot() const = 0;

  // In a forked child: forgets the pool without touching the parent's membership.
  virtual void abandon() noexcept = 0;
};

// The pools in a directory, for tools: reads without joining. A file that cannot be read is a
// complaint, one line each; the others are still returned.
std::vector<Snapshot> read_pools(const std::string& directory,
                                 std::vector<std::string>& complaints);

}  // namespace kvcached::ledger
