#include "shim/classify/callers.hpp"

#include <dlfcn.h>
#include <link.h>
#include <unwind.h>

#include <cstring>
#include <mutex>

namespace kvcached::classify {
namespace {

constexpr int kDeepest = 512;  // frames; beyond it the outermost callers are not seen
constexpr std::size_t kMostKnown = 4096;

// How often this process has loaded or unloaded libraries: others may lie at known addresses now,
// and libraries where code was that belonged to none.
std::uint64_t changes_of_libraries() noexcept {
  std::uint64_t count = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* out) {
        *static_cast<std::uint64_t*>(out) = info->dlpi_adds + info->dlpi_subs;
        return 1;
      },
      &count);
  return count;
}

// Calls `found` with an address inside the calling instruction of each frame until it says true,
// and says whether it did. A frame that nothing tells how to leave is the last.
template <class Found>
bool any_frame(Found found) noexcept {
  struct Walk {
    Found& found;
    int left = kDeepest;
    bool answer = false;
  } walk{found};
  _Unwind_Backtrace(
      [](_Unwind_Context* frame, void* data) {
        auto& at = *static_cast<Walk*>(data);
        int next = 0;  // whether the address is that of an instruction that has not begun
        const auto address = _Unwind_GetIPInfo(frame, &next);
        if (address == 0) return _URC_END_OF_STACK;
        // A call that never returns may be its function's last instruction.
        at.answer = at.found(reinterpret_cast<const void*>(address - (next != 0 ? 0 : 1)));
        return at.answer || --at.left == 0 ? _URC_END_OF_STACK : _URC_NO_REASON;
      },
      &walk);
  return walk.answer;
}

const void* own_base() noexcept {
  Dl_info info{};
  dladdr(reinterpret_cast<const void*>(&own_base), &info);
  return info.dli_fbase;
}

bool function_fits(const MatchRule& rule, const void* address) noexcept {
  Dl_info info{};
  if (dladdr(address, &info) == 0 || info.dli_fname == nullptr || info.dli_fbase == own_base()) {
    return false;
  }
  const char* slash = std::strrchr(info.dli_fname, '/');
  const char* module = slash == nullptr ? info.dli_fname : slash + 1;
  if (!rule.module.empty() && !glob_matches(rule.module, module)) {
    return false;
  }
  return rule.symbol.empty() ||
         (info.dli_sname != nullptr && glob_matches(rule.symbol, info.dli_sname));
}

}  // namespace

bool Callers::fits(const MatchRule& rule, const void* address) noexcept {
  {
    const std::shared_lock lock(mutex_);
    const auto found = known_.find(address);
    if (found != known_.end()) return found->second;
  }
  const bool answer = function_fits(rule, address);
  const std::unique_lock lock(mutex_);
  try {
    if (known_.size() >= kMostKnown) known_.clear();
    known_.emplace(address, answer);
  } catch (...) {
    return answer;  // no memory to remember it: looked up again next time
  }
  return answer;
}

bool Callers::on_stack(const MatchRule& rule) noexcept {
  const std::uint64_t changes = changes_of_libraries();
  {
    const std::unique_lock lock(mutex_);
    if (changes_ != changes) known_.clear();
    changes_ = changes;
  }
  return any_frame([&](const void* address) { return fits(rule, address); });
}

}  // namespace kvcached::classify
