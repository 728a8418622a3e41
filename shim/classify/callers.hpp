// Who makes an allocation: the functions on the calling thread's stack.
#pragma once

#include <cstdint>
#include <shared_mutex>
#include <unordered_map>

#include "policy/settings.hpp"

namespace kvcached::classify {

// Thread-safe. Takes libunwind.so.8 when first asked, for itself alone: one that all could see
// would replace the program's own unwinder. Without it nobody is found, and the log says so once.
class Callers {
 public:
  // Whether a function on the stack fits both patterns of the rule. This library's own do not
  // count, nor does what was left by a tail call. Reads no file, never the program's data.
  bool on_stack(const MatchRule& rule) noexcept;

 private:
  bool fits(const MatchRule& rule, const void* return_address) noexcept;

  // By return address, so that what repeats is looked up once. For one rule.
  std::shared_mutex mutex_;
  std::unordered_map<const void*, bool> known_;
  std::uint64_t unloaded_ = 0;  // libraries that were gone when `known_` was begun
};

}  // namespace kvcached::classify
