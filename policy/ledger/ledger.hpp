// The account of one GPU's pool, shared by all processes on it: who is charged what. One instance
// is one process's membership.
//
// The account lives in a file that every member maps. Whoever changes the account holds the byte
// lock of the file; whoever is a member holds the byte lock of its slot for life, and the kernel
// drops it with the process. No totals are stored: free is always computed from the slots.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policy/clock.hpp"
#include "policy/ledger/state.hpp"
#include "policy/units.hpp"

namespace kvcached::ledger {

struct OpenRequest {
  std::string directory;  // created (mode 0700) when missing
  GpuUuid gpu{};
  Pages pool;            // counts only for the member that creates the pool
  Pages gpu_total = {};  // all memory that the GPU has; 0: not known
  // By the user, who answers for its owner; false: the default one, whose name anybody can guess.
  bool named = true;
};

struct JoinRequest {
  std::string_view tenant;   // shared by all processes of one engine; cut to 47 characters
  TenantLimits limits;       // the tenant's first process decides, the others' are ignored
  std::string_view command;  // for display
  // As the driver has just said. The first member is promised no more, as what it loaded before is
  // known to nobody yet.
  std::optional<Bytes> gpu_free = {};
};

// Of one member: its part where several are of one tenant.
struct Duty {
  Pages reclaim;               // to be given back, to others or to one of its tenant's
  Pages reuse = Pages::max();  // not more may be in use without a new grant
  // An order to let go of all that is held idle, not obeyed yet; see trimmed().
  std::optional<std::uint32_t> trim = {};
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
  virtual bool join(const JoinRequest& request, std::string& complaint) = 0;

  // Charges all of `pages` or none. While nobody waits: first come, first served, except that other
  // tenants' minimums stay reserved and the own maximum holds. Otherwise as the plan says (see
  // policy/balance.hpp). `wish`: a request waits until so many pages are without a live block,
  // those that are so already included; refused, that becomes the member's claim, and others are
  // asked to give back what they hold idle. A claim lasts until drop_claim, though one that is met
  // asks for nothing. Waits at most 50 ms for a stopped lock holder, then refuses without waiting
  // until the lock is free again.
  virtual bool charge(Pages pages, Pages wish) noexcept = 0;
  bool charge(Pages pages) noexcept { return charge(pages, {}); }
  // Never waits: what a lock keeps it from is done by the next call that has the lock, publish and
  // reap at the latest. A claim that is made after that stands.
  virtual void drop_claim() noexcept = 0;
  // What the plan asks of this process for the own tenant, and other processes of it of this one.
  // Takes no lock on the file.
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

  // Counts what has grown since the last call for the tenant, too. Less in use than before is
  // planned with at once, if somebody waits.
  virtual void publish(const Figures& figures) noexcept = 0;
  virtual void trimmed(std::uint32_t order) noexcept = 0;
  virtual void describe_model(const ModelShape& model) noexcept = 0;
  virtual void report_adapter(std::string_view adapter, std::string_view state) noexcept = 0;

  // Moves the pages of dead members to limbo, and out of limbo when `gpu_free` (what the driver
  // says is free on the GPU now) shows that the driver has freed them, or after 5 s. Returns what
  // is still in limbo. Writes the second's history, if no member has.
  virtual Pages reap(Bytes gpu_free) noexcept = 0;

  // Both as the pool holds them now: users change them while engines run.
  virtual Pages pool() const noexcept = 0;
  // The pool's file has lost its name: whoever opens the pool from now on makes another one.
  virtual bool removed() const noexcept = 0;
  virtual TenantLimits limits() const noexcept = 0;  // of the own tenant
  // The most that the own tenant can ever hold as things are set: see reach in grant.hpp. None:
  // there is no pool that could say, which is not to be taken for nothing.
  virtual std::optional<Pages> reach() const noexcept = 0;
  virtual Snapshot snapshot() const = 0;

  // In a forked child: forgets the pool without touching the parent's membership.
  virtual void abandon() noexcept = 0;
};

// Why the default directory is not to be used, as `open` would say it: another user may have made
// it, since its name can be guessed. Empty: it can be used, or there is none.
std::string distrust_default(const std::string& directory);

// The pools in a directory, for tools: reads without joining. A file that cannot be read is a
// complaint, one line each; the others are still returned. One of another layout in which nobody
// lives is told in `leftovers`, where that is given.
std::vector<Snapshot> read_pools(const std::string& directory, std::vector<std::string>& complaints,
                                 std::vector<std::string>* leftovers = nullptr);
// What happened in them in the ten minutes before `now`.
std::vector<History> read_histories(const std::string& directory, Instant now,
                                    std::vector<std::string>& complaints,
                                    std::vector<std::string>* leftovers = nullptr);

}  // namespace kvcached::ledger
