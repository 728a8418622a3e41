// One process's membership, on a pool's file.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>

#include "policy/ledger/books.hpp"
#include "policy/ledger/file.hpp"
#include "policy/ledger/ledger.hpp"
#include "policy/ledger/planning.hpp"

namespace kvcached::ledger {

class FileLedger final : public Ledger {
 public:
  FileLedger(PoolFile file, Pages gpu_total, const Clock& clock);
  ~FileLedger() override;
  FileLedger(const FileLedger&) = delete;
  FileLedger& operator=(const FileLedger&) = delete;

  // ledger.cpp: the account.
  using Ledger::charge;
  bool charge(Pages pages, Pages wish) noexcept override;
  void drop_claim() noexcept override;
  void uncharge(Pages pages) noexcept override;
  Pages charged() const noexcept override { return Pages(own_.load()); }
  Pages reap(Bytes gpu_free) noexcept override;

  // member_ledger.cpp: coming, going, and what is said meanwhile.
  bool join(const JoinRequest& request, std::string& complaint) override;
  void publish(const Figures& figures) noexcept override;
  void trimmed(std::uint32_t order) noexcept override;
  void describe_model(const ModelShape& model) noexcept override;
  void report_adapter(std::string_view adapter, std::string_view state) noexcept override;
  Duty duty() const noexcept override;
  std::uint32_t rung() const noexcept override;
  void wait(std::uint32_t seen, Duration most) const noexcept override;
  void wake() noexcept override;
  Pages pool() const noexcept override;
  bool removed() const noexcept override;
  TenantLimits limits() const noexcept override;
  std::optional<Pages> reach() const noexcept override;
  Snapshot snapshot() const override;
  void abandon() noexcept override;

 private:
  using Hold = std::lock_guard<std::mutex>;
  static constexpr int kPatience = 45;  // ms: with what a sleep lasts longer, 50
  static constexpr std::uint32_t kNoSlot = layout::kSlots;

  // The next three need mutex_, which keeps this process's threads apart; the lock on the file
  // does not.
  bool lock(int patience) const noexcept;
  void unlock() const noexcept { file_.unlock(); }
  layout::Slot* own_slot() const noexcept;
  // Joined, and the file is there.
  bool here() const noexcept;

  // Under the lock.
  Pages restate() noexcept;
  void heard() noexcept;
  void plan() noexcept;
  void claim(Pages wish) noexcept;

  Pages due_to_siblings() const noexcept;
  void ring_siblings() noexcept;
  void ask_siblings() noexcept;

  void refused(Pages pages) noexcept;
  void end_refusal() noexcept;
  void end_wait() noexcept;
  layout::Tenant& tenant() const noexcept { return file_.mapped()->tenants[tenant_]; }
  PoolSize size() const noexcept { return size_of(*file_.mapped(), most_); }

  PoolFile file_;
  const Clock& clock_;
  const Pages most_;  // that any amount in the file can be
  const std::int64_t process_;

  mutable std::mutex mutex_;
  mutable bool try_only_ = false;  // a wait was in vain: the holder is stopped
  mutable Books books_;            // scratch
  Planning planning_;              // scratch
  std::uint32_t slot_ = kNoSlot;
  std::uint32_t tenant_ = 0;
  Pages limbo_;  // as last seen

  Instant asked_at_{};  // siblings, last

  // For what is counted.
  Figures told_;
  std::optional<Instant> refused_at_;    // the wish that still stands
  std::optional<Instant> granted_at_;    // last, since then
  std::optional<Instant> below_min_at_;  // what comes since is not counted yet

  // The truth about the own charge. The slot follows: at once when the charge grows, when the
  // lock can be had when it shrinks.
  std::atomic<std::uint64_t> own_{0};
  std::atomic<std::uint32_t> trimmed_{0};
  std::atomic<bool> claim_ends_{false};  // with the next restate()
  std::atomic<bool> abandoned_{false};
};

}  // namespace kvcached::ledger
