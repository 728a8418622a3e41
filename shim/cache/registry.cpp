#include "shim/cache/registry.hpp"

#include <algorithm>
#include <iterator>
#include <mutex>
#include <new>
#include <utility>

namespace kvcached::cache {

void BufferStack::push(std::shared_ptr<Buffer> buffer) noexcept {
  buffer->next_ = std::move(first_);
  first_ = std::move(buffer);
}

std::shared_ptr<Buffer> BufferStack::pop() noexcept {
  std::shared_ptr<Buffer> buffer = std::move(first_);
  if (buffer != nullptr) first_ = std::move(buffer->next_);
  return buffer;
}

bool Registry::add(std::shared_ptr<Buffer> buffer) noexcept {
  const std::unique_lock lock(mutex_);
  try {
    const driver::Address base = buffer->base(), end = base + buffer->reserved().value;
    if (!by_base_.emplace(base, std::move(buffer)).second) return false;
    low_.store(std::min(low_.load(std::memory_order_relaxed), base), std::memory_order_relaxed);
    high_.store(std::max(high_.load(std::memory_order_relaxed), end), std::memory_order_relaxed);
  } catch (const std::bad_alloc&) {
    return false;
  }
  count_.store(by_base_.size(), std::memory_order_release);
  return true;
}

Lookup Registry::find_locked(driver::Address address) const noexcept {
  auto after = by_base_.upper_bound(address);
  if (after == by_base_.begin()) return {};
  const auto& [base, buffer] = *std::prev(after);
  const Bytes offset(address - base);
  if (offset >= buffer->reserved()) return {};
  return {offset ? Found::interior : Found::base, buffer, offset};
}

bool Registry::is_outside(driver::Address address) const noexcept {
  return empty() || address < low_.load(std::memory_order_relaxed) ||
         address >= high_.load(std::memory_order_relaxed);
}

Lookup Registry::find(driver::Address address) const noexcept {
  if (is_outside(address)) return {};
  const std::shared_lock lock(mutex_);
  return find_locked(address);
}

Lookup Registry::take(driver::Address base) noexcept {
  if (is_outside(base)) return {};
  const std::unique_lock lock(mutex_);
  Lookup lookup = find_locked(base);
  if (lookup.found == Found::base) {
    by_base_.erase(base);
    count_.store(by_base_.size(), std::memory_order_release);
  }
  return lookup;
}

BufferStack Registry::take_all(driver::ContextId context) noexcept {
  BufferStack taken, stay;
  const std::unique_lock lock(mutex_);
  for (auto it = by_base_.begin(); it != by_base_.end();) {
    if (it->second->context() == context) {
      taken.push(std::move(it->second));
      it = by_base_.erase(it);
    } else {
      ++it;
    }
  }
  count_.store(by_base_.size(), std::memory_order_release);
  // Those that are still to be ended, too: no call may be made in their context any more.
  while (std::shared_ptr<Buffer> buffer = buried_.pop())
    (buffer->context() == context ? taken : stay).push(std::move(buffer));
  while (std::shared_ptr<Buffer> buffer = stay.pop()) buried_.push(std::move(buffer));
  return taken;
}

void Registry::bury(std::shared_ptr<Buffer> buffer) noexcept {
  const std::unique_lock lock(mutex_);
  buried_.push(std::move(buffer));
}

bool Registry::tend() noexcept {
  BufferStack left;
  for (;;) {
    std::shared_ptr<Buffer> buffer;
    {
      const std::unique_lock lock(mutex_);
      buffer = buried_.pop();
    }
    if (buffer == nullptr) break;
    if (buffer->destroy() == Result::not_now) left.push(std::move(buffer));
  }
  const std::unique_lock lock(mutex_);
  while (std::shared_ptr<Buffer> buffer = left.pop()) buried_.push(std::move(buffer));
  return !buried_.empty();
}

std::vector<std::shared_ptr<Buffer>> Registry::buffers() const {
  std::vector<std::shared_ptr<Buffer>> all;
  const std::shared_lock lock(mutex_);
  all.reserve(by_base_.size());
  for (const auto& [base, buffer] : by_base_) all.push_back(buffer);
  return all;
}

std::vector<std::shared_ptr<Worker>> Registry::workers() const {
  std::vector<std::shared_ptr<Worker>> all;
  if (empty()) return all;
  for (const std::shared_ptr<Buffer>& buffer : buffers()) {
    std::shared_ptr<Worker> worker = buffer->worker();
    if (worker != nullptr) all.push_back(std::move(worker));
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

Bytes Registry::requested() const noexcept {
  Bytes sum;
  const std::shared_lock lock(mutex_);
  for (const auto& [base, buffer] : by_base_) sum += buffer->requested();
  return sum;
}

}  // namespace kvcached::cache
