// A driver in memory. It enforces the rules of the real one (a mapping is all or nothing, no
// mapping over a mapping, memory is free after release and the last unmap, a fresh extent is zero),
// knows which launched work still uses an address, and can fail any call.
#pragma once

#include <array>
#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "shim/driver/driver.hpp"

namespace kvcached::test {

using driver::Address;
using driver::ContextId;
using driver::DeviceId;
using driver::Fence;
using driver::Handle;
using driver::MemoryInfo;
using driver::Status;

enum class Call : std::uint8_t {
  reserve,
  unreserve,
  create,
  release,
  map,
  unmap,
  fence,
  fence_passed,
  synchronize,
};
inline constexpr std::size_t kCalls = 9;

class FakeDriver final : public driver::Driver {
 public:
  explicit FakeDriver(Pages capacity) : capacity_(capacity) {}

  // ---- What tests turn and read.

  // The n-th call of this kind from now on (0: the next) fails, and `more` after it.
  void fail(Call call, std::uint64_t nth, Status with = Status::failed, std::uint64_t more = 0) {
    const std::lock_guard lock(mutex_);
    Kind& kind = kinds_[static_cast<std::size_t>(call)];
    kind.fail_from = kind.calls + nth;
    kind.fail_to = kind.fail_from + 1 + more;
    kind.with = with;
  }
  void fail_nothing() {
    const std::lock_guard lock(mutex_);
    for (Kind& kind : kinds_) kind.fail_to = 0;
  }
  std::uint64_t calls(Call call) const {
    const std::lock_guard lock(mutex_);
    return kinds_[static_cast<std::size_t>(call)].calls;
  }
  // How often fail() struck.
  std::uint64_t struck() const {
    const std::lock_guard lock(mutex_);
    return struck_;
  }
  void set_capture(bool open) {
    const std::lock_guard lock(mutex_);
    capture_ = open;
  }
  void set_lost() {
    const std::lock_guard lock(mutex_);
    lost_ = true;
  }
  void set_capacity(Pages pages) {
    const std::lock_guard lock(mutex_);
    capacity_ = pages;
  }
  // Physical pages in use.
  Pages used() const {
    const std::lock_guard lock(mutex_);
    return used_;
  }
  std::size_t extents() const {
    const std::lock_guard lock(mutex_);
    return extents_.size();
  }
  std::size_t mappings() const {
    const std::lock_guard lock(mutex_);
    return mappings_.size();
  }
  std::size_t reservations() const {
    const std::lock_guard lock(mutex_);
    return reservations_.size();
  }
  std::size_t open_fences() const {
    const std::lock_guard lock(mutex_);
    return open_fences_;
  }
  // Mappings that went while work in flight used them, or accesses to nothing.
  std::uint64_t violations() const {
    const std::lock_guard lock(mutex_);
    return violations_;
  }

  // Work that uses this address begins; it ends at finish().
  void launch(Address at) {
    const std::lock_guard lock(mutex_);
    in_flight_.emplace(at, ++launched_);
  }
  // All work launched so far ends.
  void finish() {
    const std::lock_guard lock(mutex_);
    in_flight_.clear();
    finished_ = launched_;
  }

  // What a kernel would do.
  void poke(Address at, std::uint64_t value) {
    const std::lock_guard lock(mutex_);
    if (std::uint64_t* cell = cell_at(at)) *cell = value;
  }
  std::uint64_t peek(Address at) {
    const std::lock_guard lock(mutex_);
    const std::uint64_t* cell = cell_at(at);
    return cell != nullptr ? *cell : 0;
  }
  // The extent mapped at an address; none for a hole.
  std::optional<std::uint64_t> extent_at(Address at) const {
    const std::lock_guard lock(mutex_);
    const auto mapping = mapping_at(at);
    if (mapping == mappings_.end()) return std::nullopt;
    return mapping->second.handle;
  }

  // ---- Driver

  Status reserve(Bytes size, Address& out) noexcept override {
    const std::lock_guard lock(mutex_);
    if (const Status s = enter(Call::reserve); s != Status::ok) return s;
    if (!whole(size)) return Status::failed;
    out = next_address_;
    next_address_ += size.value + 7 * kPageSize.value;  // never adjacent
    reservations_[out] = size;
    return Status::ok;
  }

  Status unreserve(Address base, Bytes size) noexcept override {
    const std::lock_guard lock(mutex_);
    if (const Status s = enter(Call::unreserve); s != Status::ok) return s;
    const auto found = reservations_.find(base);
    if (found == reservations_.end() || found->second != size) return Status::failed;
    const auto mapping = mappings_.lower_bound(base);
    if (mapping != mappings_.end() && mapping->first < base + size.value) return Status::failed;
    reservations_.erase(found);
    return Status::ok;
  }

  Status create(DeviceId, Bytes size, Handle& out) noexcept override {
    const std::lock_guard lock(mutex_);
    if (const Status s = enter(Call::create); s != Status::ok) return s;
    if (!whole(size)) return Status::failed;
    if (used_ + pages_up(size) > capacity_) return Status::out_of_memory;
    used_ += pages_up(size);
    out.value = ++last_handle_;
    extents_[out.value].size = size;
    return Status::ok;
  }

  Status release(Handle handle) noexcept override {
    const std::lock_guard lock(mutex_);
    if (const Status s = enter(Call::release); s != Status::ok) return s;
    const auto extent = extents_.find(handle.value);
    if (extent == extents_.end() || extent->second.released) return Status::failed;
    extent->second.released = true;
    free_if_unused(extent->first);
    return Status::ok;
  }

  Status map(Address at, Bytes size, Handle handle, DeviceId) noexcept override {
    const std::lock_guard lock(mutex_);
    if (const Status s = enter(Call::map); s != Status::ok) return s;
    const auto extent = extents_.find(handle.value);
    if (extent == extents_.end() || extent->second.released || extent->second.size != size) {
      return Status::failed;
    }
    if (!reserved(at, size) || overlaps(at, size)) return Status::failed;
    mappings_[at] = {size, handle.value};
    ++extent->second.mappings;
    return Status::ok;
  }

  Status unmap(Address at, Bytes size) noexcept override {
    const std::lock_guard lock(mutex_);
    if (const Status s = enter(Call::unmap); s != Status::ok) return s;
    const auto mapping = mappings_.find(at);
    if (mapping == mappings_.end() || mapping->second.size != size) return Status::failed;
    const auto user = in_flight_.lower_bound(at);
    if (user != in_flight_.end() && user->first < at + size.value) ++violations_;
    const std::uint64_t handle = mapping->second.handle;
    mappings_.erase(mapping);
    --extents_[handle].mappings;
    free_if_unused(handle);
    return Status::ok;
  }

  Status fence(ContextId, Fence& out) noexcept override {
    const std::lock_guard lock(mutex_);
    if (const Status s = enter(Call::fence); s != Status::ok) return s;
    if (capture_) return Status::not_now;
    // The number of the last launch, plus one so that it is not null.
    out.event = reinterpret_cast<void*>(launched_ + 1);
    ++open_fences_;
    return Status::ok;
  }

  Status fence_passed(ContextId, Fence fence) noexcept override {
    const std::lock_guard lock(mutex_);
    if (const Status s = enter(Call::fence_passed); s != Status::ok) return s;
    return finished_ + 1 >= reinterpret_cast<std::uint64_t>(fence.event) ? Status::ok
                                                                         : Status::not_now;
  }

  void tend() noexcept override {}
  void drop_fence(ContextId, Fence) noexcept override {
    const std::lock_guard lock(mutex_);
    --open_fences_;
  }

  Status synchronize(ContextId) noexcept override {
    const std::lock_guard lock(mutex_);
    if (const Status s = enter(Call::synchronize); s != Status::ok) return s;
    if (capture_) return Status::not_now;
    in_flight_.clear();
    finished_ = launched_;
    return Status::ok;
  }

  Status memory_info(DeviceId, MemoryInfo& out) noexcept override {
    const std::lock_guard lock(mutex_);
    out.total = bytes_of(capacity_);
    out.free = bytes_of(capacity_.minus_clamped(used_));
    return Status::ok;
  }

  void adopt_thread() noexcept override {}

 private:
  struct Kind {
    std::uint64_t calls = 0;
    std::uint64_t fail_from = 0, fail_to = 0;
    Status with = Status::failed;
  };
  struct Extent {
    Bytes size;
    std::uint32_t mappings = 0;
    bool released = false;
    std::unordered_map<std::uint64_t, std::uint64_t> cells;  // what was written, by offset
  };
  struct Mapping {
    Bytes size;
    std::uint64_t handle = 0;
  };

  Status enter(Call call) {
    Kind& kind = kinds_[static_cast<std::size_t>(call)];
    const std::uint64_t number = kind.calls++;
    if (lost_) return Status::lost;
    if (number >= kind.fail_from && number < kind.fail_to) {
      ++struck_;
      return kind.with;
    }
    return Status::ok;
  }
  static bool whole(Bytes size) { return size && size.value % kPageSize.value == 0; }
  bool reserved(Address at, Bytes size) const {
    auto after = reservations_.upper_bound(at);
    if (after == reservations_.begin()) return false;
    const auto& [base, length] = *std::prev(after);
    return at + size.value <= base + length.value;
  }
  bool overlaps(Address at, Bytes size) const {
    const auto next = mappings_.lower_bound(at);
    if (next != mappings_.end() && next->first < at + size.value) return true;
    return mapping_at(at) != mappings_.end();
  }
  std::map<Address, Mapping>::const_iterator mapping_at(Address at) const {
    auto after = mappings_.upper_bound(at);
    if (after == mappings_.begin()) return mappings_.end();
    --after;
    return at < after->first + after->second.size.value ? after : mappings_.end();
  }
  std::uint64_t* cell_at(Address at) {
    const auto mapping = mapping_at(at);
    if (mapping == mappings_.end()) {
      ++violations_;
      return nullptr;
    }
    return &extents_[mapping->second.handle].cells[at - mapping->first];
  }
  void free_if_unused(std::uint64_t handle) {
    const auto extent = extents_.find(handle);
    if (!extent->second.released || extent->second.mappings != 0) return;
    used_ -= pages_up(extent->second.size);
    extents_.erase(extent);
  }

  mutable std::mutex mutex_;
  Pages capacity_;
  Pages used_;
  Address next_address_ = 0x10'0000'0000;
  std::uint64_t last_handle_ = 0;
  std::map<Address, Bytes> reservations_;
  std::map<Address, Mapping> mappings_;
  std::unordered_map<std::uint64_t, Extent> extents_;
  std::multimap<Address, std::uint64_t> in_flight_;
  std::uint64_t launched_ = 0;
  std::uint64_t finished_ = 0;
  std::size_t open_fences_ = 0;
  std::uint64_t violations_ = 0;
  std::uint64_t struck_ = 0;
  std::array<Kind, kCalls> kinds_{};
  bool capture_ = false;
  bool lost_ = false;
};

}  // namespace kvcached::test
