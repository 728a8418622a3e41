// kvcached for C++ (14 and later): RAII over kvcached.h, header only. Results are those of
// kvcached.h; a Result converts to true when it is KVCACHED_OK. Nothing throws but std::bad_alloc.
//
//   if (!kvcached::present()) ...                        // the library is not preloaded
//   {
//     kvcached::Tag tag("kv");                           // allocations in this scope are elastic
//     cuMemAlloc(&base, bytes);
//   }
//   kvcached::Cache cache;
//   kvcached::Cache::create({{base, stride, block_bytes}}, blocks, cache);
//   auto got = cache.acquire(64, std::chrono::milliseconds(20));
#ifndef KVCACHED_HPP
#define KVCACHED_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kvcached.h"

namespace kvcached {

using Milliseconds = std::chrono::milliseconds;

// False: no call of this interface may be made.
inline bool present() noexcept { return KVCACHED_PRESENT(); }

// A value of kvcached_result.
class Result {
 public:
  constexpr Result(int code) noexcept : code_(code) {}  // NOLINT(google-explicit-constructor)
  constexpr explicit operator bool() const noexcept { return code_ == KVCACHED_OK; }
  constexpr int code() const noexcept { return code_; }

 private:
  int code_;
};

constexpr bool operator==(Result one, Result other) noexcept { return one.code() == other.code(); }
constexpr bool operator!=(Result one, Result other) noexcept { return !(one == other); }

// While it lives, allocations of this thread are elastic. Not to be moved to another thread.
class Tag {
 public:
  explicit Tag(const char* name) noexcept { kvcached_tag_push(name); }
  ~Tag() { kvcached_tag_pop(); }
  Tag(const Tag&) = delete;
  Tag& operator=(const Tag&) = delete;
};

inline Result grow(std::uint64_t address, std::size_t offset, std::size_t bytes,
                   Milliseconds wait = Milliseconds::zero()) noexcept {
  return kvcached_grow(address, offset, bytes, wait.count());
}
inline Result shrink(std::uint64_t address, std::size_t offset, std::size_t bytes) noexcept {
  return kvcached_shrink(address, offset, bytes);
}
inline Result resident(std::uint64_t address, std::size_t offset, std::size_t bytes,
                       std::size_t& out) noexcept {
  return kvcached_resident(address, offset, bytes, &out);
}

struct Model {
  std::string name;
  std::uint32_t layers = 0, kv_heads = 0, head_dim = 0, bytes_per_element = 0;
  std::uint32_t max_seq_len = 0, block_tokens = 0;
  std::uint64_t bytes_per_token = 0;  // 0: of the shape
};
struct Capacity {
  std::uint64_t bytes_per_token = 0, tokens = 0, guaranteed_tokens = 0;
};
inline Result register_model(const Model& model, Capacity& capacity) noexcept {
  const kvcached_model m{sizeof m,          model.name.c_str(), model.layers,
                         model.kv_heads,    model.head_dim,     model.bytes_per_element,
                         model.max_seq_len, model.block_tokens, model.bytes_per_token};
  kvcached_model_info info{sizeof info, 0, 0, 0};
  const Result result = kvcached_model_register(&m, &info);
  if (result) capacity = {info.bytes_per_token, info.capacity_tokens, info.guaranteed_tokens};
  return result;
}

inline std::uint32_t max_seq_len() noexcept { return kvcached_model_max_seq_len(); }
// `function` as in kvcached.h, or null.
inline Result on_max_seq_len(kvcached_max_seq_len_function function, void* user) noexcept {
  return kvcached_model_on_max_seq_len(function, user);
}

using Segment = kvcached_segment;
using Range = kvcached_range;

// The blocks that an acquire brought, and why not more.
struct Acquired {
  Result result = KVCACHED_OK;
  std::vector<Range> ranges;

  std::uint64_t blocks() const noexcept {
    std::uint64_t sum = 0;
    for (const Range& r : ranges) sum += r.count;
    return sum;
  }
};

// Owns a cache; empty until create() fills it. Calls on an empty one answer KVCACHED_INVALID. As
// thread-safe as the handle it owns, moving and destruction aside.
class Cache {
 public:
  Cache() = default;
  ~Cache() { reset(); }
  Cache(Cache&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Cache& operator=(Cache&& other) noexcept {
    if (this != &other) {
      reset();
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  static Result create(const std::vector<Segment>& segments, std::uint64_t blocks, Cache& out,
                       const std::vector<Range>& pinned = {},
                       std::uint64_t stripe_bytes = 0) noexcept {
    const kvcached_geometry geometry{sizeof geometry, segments.data(), segments.size(), blocks,
                                     pinned.data(),   pinned.size(),   stripe_bytes};
    kvcached_cache* handle = nullptr;
    const Result result = kvcached_cache_create(&geometry, &handle);
    if (result) {
      out.reset();
      out.handle_ = handle;
    }
    return result;
  }
  void reset() noexcept {
    if (handle_ != nullptr) kvcached_cache_destroy(std::exchange(handle_, nullptr));
  }

  // `flags`: of kvcached_acquire_flags. At most `most_ranges` ranges.
  Acquired acquire(std::uint64_t blocks, Milliseconds wait = Milliseconds::zero(),
                   unsigned flags = 0, std::size_t most_ranges = 256) {
    Acquired got;
    got.ranges.resize(most_ranges);
    std::size_t count = most_ranges;
    got.result =
        kvcached_cache_acquire(handle_, blocks, flags, wait.count(), got.ranges.data(), &count);
    const bool some = got.result || got.result == Result(KVCACHED_SHORT);
    got.ranges.resize(some ? count : 0);
    return got;
  }
  // All of these blocks, or none.
  Result acquire_ranges(const std::vector<Range>& ranges,
                        Milliseconds wait = Milliseconds::zero()) noexcept {
    return kvcached_cache_acquire_ranges(handle_, ranges.data(), ranges.size(), wait.count());
  }
  Result release(const std::vector<Range>& ranges) noexcept {
    return kvcached_cache_release(handle_, ranges.data(), ranges.size());
  }
  Result expect(std::uint64_t blocks) noexcept { return kvcached_cache_expect(handle_, blocks); }
  Result evicted(std::uint64_t blocks) noexcept { return kvcached_cache_evicted(handle_, blocks); }
  Result in_use(std::uint64_t blocks) noexcept { return kvcached_cache_in_use(handle_, blocks); }
  std::uint64_t pressure() const noexcept { return kvcached_cache_pressure(handle_); }
  // `function` as in kvcached.h, or null.
  Result on_reclaim(kvcached_reclaim_function function, void* user) noexcept {
    return kvcached_cache_on_reclaim(handle_, function, user);
  }
  Result wait_pressure(Milliseconds wait) const noexcept {
    return kvcached_cache_wait_pressure(handle_, wait.count());
  }
  std::uint64_t available() const noexcept { return kvcached_cache_available(handle_); }
  Result describe(kvcached_cache_info& info) const noexcept {
    info.struct_size = sizeof info;
    return kvcached_cache_describe(handle_, &info);
  }
  std::vector<Range> stripes() const {
    std::size_t count = 0;
    if (kvcached_cache_stripes(handle_, nullptr, &count) != KVCACHED_OK) return {};
    std::vector<Range> all(count);
    if (kvcached_cache_stripes(handle_, all.data(), &count) != KVCACHED_OK) return {};
    return all;
  }
  kvcached_cache* handle() const noexcept { return handle_; }

 private:
  kvcached_cache* handle_ = nullptr;
};

}  // namespace kvcached

#endif
