// An object with static storage that is never destroyed: other threads may still use it while the
// process exits.
#pragma once

#include <utility>

namespace kvcached::driver {

template <class T>
union Immortal {
  template <class... A>
  explicit Immortal(A&&... arguments) : object(std::forward<A>(arguments)...) {}
  ~Immortal() {}
  Immortal(const Immortal&) = delete;
  Immortal& operator=(const Immortal&) = delete;

  T object;
};

}  // namespace kvcached::driver
