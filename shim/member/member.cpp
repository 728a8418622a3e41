#include "shim/member/member.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "policy/small_file.hpp"
#include "shim/log.hpp"

namespace kvcached::member {

namespace {

constexpr std::uint64_t kFirstPidNamespace = 0xEFFFFFFC;  // fixed by the kernel

thread_local Prepaid* t_prepaid = nullptr;

}  // namespace

Prepaid::Prepaid(Member& member, Pages pages) noexcept : member_(member), rest_(pages) {
  t_prepaid = this;
}

Prepaid::~Prepaid() { t_prepaid = nullptr; }

bool Member::charge(Pages pages, Pages wish) noexcept {
  if (t_prepaid != nullptr && &t_prepaid->member_ == this && t_prepaid->rest_ >= pages) {
    t_prepaid->rest_ -= pages;
    return true;
  }
  return ledger_->charge(pages, wish);
}

void Member::begin_wish() noexcept {
  const std::lock_guard lock(wishing_);
  ++wishers_;
}

void Member::drop_wish() noexcept {
  const std::lock_guard lock(wishing_);
  if (wishers_ != 0 && --wishers_ != 0) return;
  ledger_->drop_claim();
}

void Member::uncharge(Pages pages) noexcept {
  if (t_prepaid != nullptr && &t_prepaid->member_ == this)
    t_prepaid->rest_ += pages;  // an attempt that failed is repeated from the same pages
  else
    ledger_->uncharge(pages);
}

std::string program_name() {
  std::array<char, 32> room{};
  const std::string_view text = read_small("/proc/self/comm", room);
  return text.empty() ? "unknown" : std::string(text.substr(0, text.find('\n')));
}

std::string unnamed_tenant() {
  char path[512];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  const std::string_view text(path, size > 0 ? static_cast<std::size_t>(size) : 0);
  const std::string_view program = text.substr(text.rfind('/') + 1);
  const std::string name = fmt::format("{}-{}", program.empty() ? "unknown" : program, getsid(0));
  const std::uint64_t space = ledger::pid_namespace();
  return space == kFirstPidNamespace ? name : fmt::format("{}-{}", name, space);
}

std::unique_ptr<Member> Member::join(const Settings& settings, const ledger::GpuUuid& gpu,
                                     Bytes gpu_total, std::optional<Bytes> gpu_free,
                                     const Clock& clock) noexcept {
  try {
    const Pages pool = pages_down(settings.pool.of(gpu_total));
    ledger::OpenRequest request{settings.directory, gpu, pool, pages_down(gpu_total),
                                settings.directory_named};
    ledger::Refusal refusal{};
    std::string complaint;
    std::unique_ptr<ledger::Ledger> ledger =
        ledger::Ledger::open(request, clock, refusal, complaint);
    if (!ledger) {
      warn("{}; memory stays plain", complaint);
      return nullptr;
    }
    if (ledger->pool() != pool)
      inform("the pool was made with {} MiB; this process's setting of {} MiB does not count",
             bytes_of(ledger->pool()).value >> 20, bytes_of(pool).value >> 20);
    const Bytes pool_bytes = bytes_of(ledger->pool());
    ledger::TenantLimits limits;
    limits.min = pages_up(settings.min.of(pool_bytes));
    limits.max = std::max(pages_down(settings.max.of(pool_bytes)), limits.min);
    limits.weight = settings.weight;
    if (!ledger->pool() || !limits.max)
      warn("{}: comes to less than a page of 2 MiB; no memory can be elastic",
           ledger->pool() ? "KVCACHED_MAX" : "KVCACHED_POOL");
    const std::string tenant = settings.name.empty() ? unnamed_tenant() : settings.name;
    const std::string program = program_name();
    if (!ledger->join({tenant, limits, program, gpu_free}, complaint)) {
      warn("{}; memory stays plain", complaint);
      return nullptr;
    }
    if (!complaint.empty()) warn("{}", complaint);
    const ledger::TenantLimits kept = ledger->limits();
    if (kept.min < limits.min)
      warn("KVCACHED_MIN: the pool keeps {} MiB for {}, not {} MiB", bytes_of(kept.min).value >> 20,
           tenant, bytes_of(limits.min).value >> 20);
    const Pages most = ledger->pool();
    if (std::min(kept.max, most) != std::min(limits.max, most) || kept.weight != limits.weight)
      warn("{} has a maximum of {} MiB and weight {}; this process's {} MiB and {} do not count",
           tenant, bytes_of(kept.max).value >> 20, kept.weight, bytes_of(limits.max).value >> 20,
           limits.weight);
    return std::unique_ptr<Member>(new Member(std::move(ledger)));
  } catch (...) {
    warn("no memory to join the pool; memory stays plain");
    return nullptr;
  }
}

void Member::describe_model(const ledger::ModelShape& model) noexcept {
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(model.bytes_per_token, model.max_seq_len, &bytes)) bytes = ~0ULL;
  longest_request_ = bytes;
  sequence_.describe(model);
  ledger_->describe_model(model);
}

Pages Member::limit() const noexcept { return std::min(ledger_->pool(), ledger_->limits().max); }

}  // namespace kvcached::member
