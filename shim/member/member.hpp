// This process in one GPU's pool: joins, charges, leaves. The cache floor sees it as its budget.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "policy/ledger/ledger.hpp"
#include "policy/settings.hpp"
#include "shim/cache/budget.hpp"
#include "shim/member/sequence.hpp"

namespace kvcached::member {

// Thread-safe. Charges are remembered by the ledger's slot, which is this process's alone.
class Member final : public cache::Budget {
 public:
  // Joins the pool of the GPU. `gpu_total` turns shares of the settings into sizes. Null when the
  // pool cannot be used: one line in the log says why, and memory stays plain.
  static std::unique_ptr<Member> join(const Settings& settings, const ledger::GpuUuid& gpu,
                                      Bytes gpu_total, std::optional<Bytes> gpu_free,
                                      const Clock& clock) noexcept;

  using Budget::charge;
  bool charge(Pages pages, Pages wish) noexcept override;
  void begin_wish() noexcept override;
  void drop_wish() noexcept override;
  void uncharge(Pages pages) noexcept override;
  Pages limit() const noexcept override;

  ledger::Ledger& ledger() noexcept { return *ledger_; }

  void describe_model(const ledger::ModelShape& model) noexcept;
  // What one request of the model's greatest length takes; 0: no model was described.
  Bytes longest_request() const noexcept { return Bytes(longest_request_.load()); }

  Sequence& sequence() noexcept { return sequence_; }

  // In a forked child: forgets the pool without touching the parent's membership.
  void abandon() noexcept { ledger_->abandon(); }

 private:
  explicit Member(std::unique_ptr<ledger::Ledger> ledger) : ledger_(std::move(ledger)) {}

  std::unique_ptr<ledger::Ledger> ledger_;
  std::mutex wishing_;  // taken before the ledger's
  std::uint64_t wishers_ = 0;
  std::atomic<std::uint64_t> longest_request_{0};  // bytes
  Sequence sequence_;
};

// While it lives, charges of this thread to this member are paid from pages that were charged
// earlier, as long as they last; what it uncharges is added to them.
class Prepaid {
 public:
  Prepaid(Member& member, Pages pages) noexcept;
  ~Prepaid();
  Prepaid(const Prepaid&) = delete;
  Prepaid& operator=(const Prepaid&) = delete;

  // Not used: still charged, and the caller's to uncharge.
  Pages rest() const noexcept { return rest_; }

 private:
  friend class Member;
  const Member& member_;
  Pages rest_;
};

// The program as `stat` shows it: the name that the kernel has of it, which engines set themselves.
std::string program_name();

// The tenant of an engine that was given no name: its program and its session, so that the
// processes of one engine share a tenant and two engines do not. Sessions are numbered anew in each
// container, so there the kernel's number for that is added.
std::string unnamed_tenant();

}  // namespace kvcached::member
