#include "shim/classify/callers.hpp"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <span>

#include "shim/log.hpp"

namespace kvcached::classify {
namespace {

constexpr std::size_t kDeepest = 512;  // frames; beyond it the outermost callers are not seen
constexpr std::size_t kMostKnown = 4096;

using Backtrace = int (*)(void**, int);

Backtrace find_backtrace() noexcept {
  void* library = dlopen("libunwind.so.8", RTLD_NOW | RTLD_LOCAL);
  auto* found =
      library == nullptr ? nullptr : reinterpret_cast<Backtrace>(dlsym(library, "unw_backtrace"));
  if (found == nullptr) {
    warn("KVCACHED_MATCH names a caller, which needs libunwind.so.8: {}; the rule is off",
         library == nullptr ? "it cannot be loaded" : "it has no unw_backtrace");
  }
  return found;
}

Backtrace backtrace() noexcept {
  static const Backtrace found = find_backtrace();
  return found;
}

// How many libraries this process has unloaded: others may lie at their addresses now.
std::uint64_t unloaded_libraries() noexcept {
  std::uint64_t count = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* out) {
        *static_cast<std::uint64_t*>(out) = info->dlpi_subs;
        return 1;
      },
      &count);
  return count;
}

const void* own_base() noexcept {
  Dl_info info{};
  dladdr(reinterpret_cast<const void*>(&own_base), &info);
  return info.dli_fbase;
}

bool function_fits(const MatchRule& rule, const void* return_address) noexcept {
  Dl_info info{};
  // A call that never returns may be its function's last instruction.
  if (dladdr(static_cast<const char*>(return_address) - 1, &info) == 0 ||
      info.dli_fname == nullptr || info.dli_fbase == own_base()) {
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

bool Callers::fits(const MatchRule& rule, const void* return_address) noexcept {
  {
    const std::shared_lock lock(mutex_);
    const auto found = known_.find(return_address);
    if (found != known_.end()) return found->second;
  }
  const bool answer = function_fits(rule, return_address);
  const std::unique_lock lock(mutex_);
  try {
    if (known_.size() >= kMostKnown) known_.clear();
    known_.emplace(return_address, answer);
  } catch (...) {
    return answer;  // no memory to remember it: looked up again next time
  }
  return answer;
}

bool Callers::on_stack(const MatchRule& rule) noexcept {
  const Backtrace walk = backtrace();
  if (walk == nullptr) {
    return false;
  }
  const std::uint64_t unloaded = unloaded_libraries();
  {
    const std::unique_lock lock(mutex_);
    if (unloaded_ != unloaded) known_.clear();
    unloaded_ = unloaded;
  }
  std::array<void*, kDeepest> frames;  // NOLINT: the walk fills what is read
  const int count = walk(frames.data(), static_cast<int>(frames.size()));
  const std::span<void* const> seen(frames.data(), static_cast<std::size_t>(std::max(count, 0)));
  return std::any_of(seen.begin(), seen.end(),
                     [&](const void* address) { return fits(rule, address); });
}

}  // namespace kvcached::classify
