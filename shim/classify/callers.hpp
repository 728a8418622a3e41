// Who makes an allocation: the functions on the calling thread's stack.
#pragma once

#include <cstdint>
#include <shared_mutex>
#include <unordered_map>

#include "policy/settings.hpp"

namespace kvcached::classify {

// Thread-safe. Walks with the compiler's own unwinder, which is inside this library: it loads
// nothing, and holds no descriptor that the program could close and reuse.
class Callers {
 public:
  // Whether a function on the stack fits both patterns of the rule. This library's own do not
  // count, nor does what was left by a tail call, nor what lies beyond code without unwind
  // information. Reads no file.
  bool on_stack(const MatchRule& rule) noexcept;

 private:
  bool fits(const MatchRule& rule, const void* address) noexcept;

  // By place of the call, so that what repeats is looked up once. For one rule.
  std::shared_mutex mutex_;
  std::unordered_map<const void*, bool> known_;
  std::uint64_t changes_ = 0;  // of the set of libraries when `known_` was begun
};

}  // namespace kvcached::classify
