// The handles that the public interface gives out for caches.
#pragma once

#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <unordered_map>

#include "shim/cache/cache.hpp"

struct kvcached_cache;

namespace kvcached::cache {

// Thread-safe. A handle is a number, not an address: one that is stale or made up is noticed.
class Handles {
 public:
  // One that stands for nothing yet; null without memory.
  kvcached_cache* make() noexcept;
  void set(const kvcached_cache* handle, std::shared_ptr<Cache> cache) noexcept;
  // Null: it stands for nothing.
  std::shared_ptr<Cache> find(const kvcached_cache* handle) const noexcept;
  std::shared_ptr<Cache> remove(const kvcached_cache* handle) noexcept;

 private:
  mutable std::shared_mutex mutex_;
  std::unordered_map<std::uintptr_t, std::shared_ptr<Cache>> caches_;
  std::uintptr_t last_ = 0;
};

}  // namespace kvcached::cache
