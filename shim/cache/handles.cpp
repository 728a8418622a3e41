#include "shim/cache/handles.hpp"

#include <mutex>
#include <new>
#include <utility>

namespace kvcached::cache {
namespace {

std::uintptr_t number(const kvcached_cache* handle) noexcept {
  return reinterpret_cast<std::uintptr_t>(handle);
}

}  // namespace

kvcached_cache* Handles::make() noexcept try {
  const std::unique_lock lock(mutex_);
  caches_.emplace(last_ + 1, nullptr);
  return reinterpret_cast<kvcached_cache*>(++last_);
} catch (const std::bad_alloc&) {
  return nullptr;
}

void Handles::set(const kvcached_cache* handle, std::shared_ptr<Cache> cache) noexcept {
  const std::unique_lock lock(mutex_);
  const auto found = caches_.find(number(handle));
  if (found != caches_.end()) found->second = std::move(cache);
}

std::shared_ptr<Cache> Handles::find(const kvcached_cache* handle) const noexcept {
  const std::shared_lock lock(mutex_);
  const auto found = caches_.find(number(handle));
  return found != caches_.end() ? found->second : nullptr;
}

std::shared_ptr<Cache> Handles::remove(const kvcached_cache* handle) noexcept {
  const std::unique_lock lock(mutex_);
  const auto node = caches_.extract(number(handle));
  return node.empty() ? nullptr : std::move(node.mapped());
}

}  // namespace kvcached::cache
