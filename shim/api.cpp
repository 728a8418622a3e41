// What each call of kvcached.h means.
#define KVCACHED_BUILDING
#include <algorithm>
#include <limits>
#include <new>
#include <span>
#include <thread>
#include <type_traits>
#include <vector>

#include "shim/cache/cache.hpp"
#include "shim/cache/ranges.hpp"
#include "shim/classify/tags.hpp"
#include "shim/include/kvcached.h"
#include "shim/log.hpp"
#include "shim/process.hpp"

namespace {

using namespace kvcached;
using std::chrono::milliseconds;

constexpr Duration kBusyPatience = std::chrono::seconds(1);     // for a capture to end
constexpr Duration kClosePatience = std::chrono::seconds(2);    // for a closed cache's memory to go
constexpr Duration kCreatePatience = std::chrono::seconds(30);  // for memory for pinned blocks
// What a cache keeps warm however long it is quiet, unless the GPU is short of memory: at least so
// much, and no stripe beyond. Of vLLM's, which double from 32 MiB, the first 224 MiB remain.
constexpr Bytes kWarmFloor{192ULL << 20};
constexpr std::uint64_t kWarmFloorShare = 128;  // but no more than this part of its limit

int code(cache::Result result) noexcept {
  switch (result) {
    case cache::Result::ok:
      return KVCACHED_OK;
    case cache::Result::shortage:
      return KVCACHED_SHORT;
    case cache::Result::not_now:
      return KVCACHED_BUSY;
    case cache::Result::invalid:
      return KVCACHED_INVALID;
    case cache::Result::lost:
      return KVCACHED_LOST;
    case cache::Result::failed:
      break;
  }
  return KVCACHED_FAILED;
}

Duration duration(std::int64_t ms) noexcept {
  constexpr std::int64_t kDay = std::int64_t{24} * 3600 * 1000;
  return milliseconds(std::clamp<std::int64_t>(ms, 0, kDay));
}

// Tries until it is neither `retry` nor past the deadline, pausing 1 to 20 ms in between.
template <class F>
cache::Result persist(const Clock& clock, Duration patience, cache::Result retry, F attempt) {
  const Instant deadline = clock.now() + patience;
  for (Duration pause = milliseconds(1);; pause = std::min<Duration>(pause * 2, milliseconds(20))) {
    const cache::Result result = attempt();
    const Duration left = deadline - clock.now();
    if (result != retry || left <= Duration::zero()) return result;
    std::this_thread::sleep_for(std::min(pause, left));
  }
}

std::vector<cache::BlockRange> to_ranges(std::span<const kvcached_range> ranges) {
  std::vector<cache::BlockRange> out;
  out.reserve(ranges.size());
  for (const kvcached_range& range : ranges) out.push_back({range.first, range.count});
  return out;
}

struct Place {
  std::shared_ptr<cache::Buffer> buffer;
  Bytes offset;
};

// The elastic buffer and offset of address + offset; `bytes` must fit behind it.
int locate(Process& process, std::uint64_t address, std::size_t offset, std::size_t bytes,
           Place& out) noexcept {
  const cache::Lookup found = process.registry().find(address);
  if (found.found == cache::Found::unknown || found.offset >= found.buffer->requested())
    return KVCACHED_NOT_ELASTIC;
  const std::uint64_t room = (found.buffer->requested() - found.offset).value;
  if (offset > room || bytes > room - offset) return KVCACHED_INVALID;
  out = {found.buffer, found.offset + Bytes(offset)};
  return KVCACHED_OK;
}

// The byte ranges of the elastic buffer at address + offset, waiting for an open capture.
int ranges_at(Process& process, std::uint64_t address, std::size_t offset, std::size_t bytes,
              Place& place, std::shared_ptr<cache::Ranges>& out) noexcept {
  if (const int bad = locate(process, address, offset, bytes, place)) return bad;
  const cache::Result made = persist(process.clock(), kBusyPatience, cache::Result::not_now, [&] {
    return cache::Ranges::of(place.buffer, process.agent(), process.clock(), out);
  });
  if (made == cache::Result::ok) process.claimed(place.buffer);
  return code(made);
}

// Waits for all work that may use the buffer, and for an open capture.
cache::Result work_done(Process& process, const cache::Buffer& buffer) noexcept {
  return persist(process.clock(), kBusyPatience, cache::Result::not_now,
                 [&] { return cache::result_of(buffer.driver().synchronize(buffer.context())); });
}

// Calls f(process, cache) for the cache that a handle stands for; OFF or INVALID where there is
// none.
template <class F>
int with_cache(const kvcached_cache* handle, F f) noexcept {
  Process* const process = Process::get();
  if (process == nullptr) return KVCACHED_OFF;
  const auto cache = process->handles().find(handle);
  if (!cache) return KVCACHED_INVALID;
  try {
    return f(*process, *cache);
  } catch (...) {
    return KVCACHED_FAILED;
  }
}

// What `f` says of the cache that a handle stands for; nothing where there is none.
template <class F>
std::invoke_result_t<F, const cache::Cache&> ask_cache(const kvcached_cache* handle, F f) noexcept {
  Process* const process = Process::get();
  const auto cache = process != nullptr ? process->handles().find(handle) : nullptr;
  if (!cache) return {};
  return f(*cache);
}

}  // namespace

extern "C" {

int kvcached_version(void) { return KVCACHED_API_VERSION; }

int kvcached_tag_push(const char* tag) {
  if (tag == nullptr) return KVCACHED_INVALID;
  classify::push_tag(tag);
  return KVCACHED_OK;
}

int kvcached_tag_pop(void) { return classify::pop_tag() ? KVCACHED_OK : KVCACHED_INVALID; }

int kvcached_grow(uint64_t address, size_t offset, size_t bytes, int64_t wait_ms) {
  Process* const process = Process::get();
  if (process == nullptr) return KVCACHED_OFF;
  Place place;
  std::shared_ptr<cache::Ranges> ranges;
  if (const int bad = ranges_at(*process, address, offset, bytes, place, ranges)) return bad;
  return code(persist(process->clock(), duration(wait_ms), cache::Result::shortage,
                      [&] { return ranges->grow(place.offset, Bytes(bytes)); }));
}

int kvcached_shrink(uint64_t address, size_t offset, size_t bytes) {
  Process* const process = Process::get();
  if (process == nullptr) return KVCACHED_OFF;
  Place place;
  std::shared_ptr<cache::Ranges> ranges;
  if (const int bad = ranges_at(*process, address, offset, bytes, place, ranges)) return bad;
  return code(ranges->shrink(place.offset, Bytes(bytes)));
}

int kvcached_resident(uint64_t address, size_t offset, size_t bytes, size_t* resident) {
  Process* const process = Process::get();
  if (resident == nullptr) return KVCACHED_INVALID;
  if (process == nullptr) return KVCACHED_OFF;
  Place place;
  if (const int bad = locate(*process, address, offset, bytes, place)) return bad;
  Bytes answer = place.buffer->resident(place.offset, Bytes(bytes));
  if (const auto ranges = std::dynamic_pointer_cast<cache::Ranges>(place.buffer->worker()))
    if (const auto r = ranges->resident(place.offset, Bytes(bytes), answer); r != cache::Result::ok)
      return code(r);
  *resident = answer.value;
  return KVCACHED_OK;
}

int kvcached_back_whole(uint64_t address, int64_t wait_ms) {
  Process* const process = Process::get();
  if (process == nullptr) return KVCACHED_OFF;
  Place place;
  if (const int bad = locate(*process, address, 0, 0, place)) return bad;
  return code(persist(process->clock(), duration(wait_ms), cache::Result::shortage, [&] {
    const cache::Result idle = work_done(*process, *place.buffer);
    return idle == cache::Result::ok ? process->back_whole(place.buffer) : idle;
  }));
}

int kvcached_model_register(const kvcached_model* model, kvcached_model_info* info) {
  if (model == nullptr || model->struct_size < offsetof(kvcached_model, bytes_per_token) ||
      model->name == nullptr)
    return KVCACHED_INVALID;
  if (info != nullptr && info->struct_size < sizeof(kvcached_model_info)) return KVCACHED_INVALID;
  std::uint64_t per_token = 2;  // K and V
  for (const std::uint32_t factor :
       {model->layers, model->kv_heads, model->head_dim, model->bytes_per_element})
    if (factor == 0 || __builtin_mul_overflow(per_token, factor, &per_token))
      return KVCACHED_INVALID;
  if (model->max_seq_len == 0 || model->block_tokens == 0) return KVCACHED_INVALID;
  if (model->struct_size >= sizeof(kvcached_model) && model->bytes_per_token != 0)
    per_token = model->bytes_per_token;
  Process* const process = Process::get();
  if (process == nullptr) return KVCACHED_OFF;
  member::Member* const member = process->member(process->current_device());
  if (member == nullptr) return KVCACHED_OFF;
  try {
    ledger::ModelShape shape;
    shape.name = model->name;
    shape.layers = model->layers;
    shape.kv_heads = model->kv_heads;
    shape.head_dim = model->head_dim;
    shape.bytes_per_element = model->bytes_per_element;
    shape.max_seq_len = model->max_seq_len;
    shape.block_tokens = model->block_tokens;
    shape.bytes_per_token = per_token;
    member->describe_model(shape);
    process->agent().wake();
  } catch (...) {
    return KVCACHED_FAILED;
  }
  if (info != nullptr) {
    info->bytes_per_token = per_token;
    info->capacity_tokens = bytes_of(member->limit()).value / per_token;
    info->guaranteed_tokens = bytes_of(member->ledger().limits().min).value / per_token;
  }
  return KVCACHED_OK;
}

uint32_t kvcached_model_max_seq_len(void) {
  Process* const process = Process::get();
  if (process == nullptr) return 0;
  const driver::DeviceId device = process->current_device();
  member::Member* const member = process->member(device);
  if (member == nullptr || !member->sequence().described()) return 0;
  return member->sequence().fitting(member->ledger().reach(), process->registry(), device);
}

int kvcached_model_on_max_seq_len(kvcached_max_seq_len_function function, void* user) {
  Process* const process = Process::get();
  if (process == nullptr) return KVCACHED_OFF;
  member::Member* const member = process->member(process->current_device());
  if (member == nullptr) return KVCACHED_OFF;
  try {
    if (function == nullptr)
      member->sequence().on_change(nullptr);
    else
      member->sequence().on_change([=](std::uint32_t tokens) { function(tokens, user); });
  } catch (...) {
    return KVCACHED_FAILED;
  }
  process->agent().wake();
  return KVCACHED_OK;
}

int kvcached_cache_create(const kvcached_geometry* geometry, kvcached_cache** out) {
  if (geometry == nullptr || out == nullptr || geometry->struct_size < sizeof(kvcached_geometry) ||
      geometry->segments == nullptr || geometry->segment_count == 0 ||
      (geometry->pinned == nullptr && geometry->pinned_count != 0))
    return KVCACHED_INVALID;
  Process* const process = Process::get();
  if (process == nullptr) return KVCACHED_OFF;
  try {
    std::vector<std::shared_ptr<cache::Buffer>> buffers;
    std::vector<cache::Segment> segments;
    for (std::size_t i = 0; i < geometry->segment_count; ++i) {
      const kvcached_segment& s = geometry->segments[i];
      Place place;
      if (const int bad = locate(*process, s.base, 0, 0, place)) return bad;
      const auto known = std::find(buffers.begin(), buffers.end(), place.buffer);
      const auto index = static_cast<std::uint32_t>(known - buffers.begin());
      if (known == buffers.end()) buffers.push_back(place.buffer);
      segments.push_back({index, place.offset, Bytes(s.stride), Bytes(s.block_bytes)});
    }
    const std::vector<cache::BlockRange> pinned =
        to_ranges({geometry->pinned, geometry->pinned_count});
    cache::CacheRequest request;
    request.buffers = buffers;
    request.segments = segments;
    request.blocks = geometry->blocks;
    request.pinned = pinned;
    request.extent_bytes =
        geometry->stripe_bytes != 0 ? Bytes(geometry->stripe_bytes) : process->settings().stripe;
    request.warm_cap = process->settings().warm.value_or(Bytes::max());
    request.warm_floor =
        std::min(kWarmFloor, bytes_of(buffers.front()->budget().limit()) / kWarmFloorShare);
    // Before the cache: one that exists is not ended at once.
    kvcached_cache* const handle = process->handles().make();
    if (handle == nullptr) return KVCACHED_FAILED;
    std::shared_ptr<cache::Cache> cache;
    buffers.front()->budget().begin_wish();  // of all attempts together
    const cache::Result made =
        persist(process->clock(), kCreatePatience, cache::Result::shortage, [&] {
          return persist(process->clock(), kBusyPatience, cache::Result::not_now, [&] {
            return cache::Cache::create(request, process->agent(), process->clock(), cache);
          });
        });
    buffers.front()->budget().drop_wish();
    if (made != cache::Result::ok) {
      process->handles().remove(handle);
      return code(made);
    }
    process->handles().set(handle, std::move(cache));
    for (const auto& buffer : buffers) process->claimed(buffer);
    *out = handle;
    process->agent().wake();
    return KVCACHED_OK;
  } catch (...) {
    return KVCACHED_FAILED;
  }
}

int kvcached_cache_destroy(kvcached_cache* handle) {
  Process* const process = Process::get();
  if (process == nullptr) return KVCACHED_OFF;
  const auto cache = process->handles().remove(handle);
  if (!cache) return KVCACHED_INVALID;
  cache->on_reclaim(nullptr);
  cache->close();
  process->agent().wake();
  // Its allocations can serve another cache only when it has let go of them.
  persist(process->clock(), kClosePatience, cache::Result::not_now, [&] {
    cache->work();
    return cache->finished() ? cache::Result::ok : cache::Result::not_now;
  });
  return KVCACHED_OK;
}

int kvcached_cache_acquire(kvcached_cache* handle, uint64_t blocks, unsigned flags, int64_t wait_ms,
                           kvcached_range* ranges, size_t* range_count) {
  constexpr unsigned kKnown = KVCACHED_WHOLE_STRIPES | KVCACHED_UNTIL_REFUSED;
  if (range_count == nullptr || (ranges == nullptr && *range_count != 0) || (flags & ~kKnown) != 0)
    return KVCACHED_INVALID;
  Process* const process = Process::get();
  if (process == nullptr) return KVCACHED_OFF;
  const auto cache = process->handles().find(handle);
  if (!cache) return KVCACHED_INVALID;
  if (cache->closed()) return KVCACHED_LOST;
  const bool whole = (flags & KVCACHED_WHOLE_STRIPES) != 0;
  const auto patience =
      (flags & KVCACHED_UNTIL_REFUSED) != 0 ? cache::Patience::mapping : cache::Patience::pool;
  try {
    std::vector<cache::BlockRange> taken(*range_count);
    const Instant deadline = process->clock().now() + duration(wait_ms);
    std::uint64_t blocks_taken = 0;
    std::size_t ranges_taken = 0;
    cache::Result result = cache::Result::ok;
    // What a wait found ready may be gone again when it is taken: another thread took it.
    for (bool refused = wait_ms <= 0;;) {
      const std::uint64_t missing = blocks - blocks_taken;
      if (!refused && cache->available() < missing)
        refused = cache->wait_ready(missing, deadline, patience) != cache::Result::ok;
      const cache::Acquired got =
          cache->acquire(missing, whole, std::span(taken).subspan(ranges_taken));
      result = got.result;
      blocks_taken += std::min(got.blocks, missing);
      ranges_taken += got.ranges;
      refused = refused || process->clock().now() >= deadline;
      if (result != cache::Result::shortage || refused || ranges_taken == taken.size()) break;
    }
    for (std::size_t i = 0; i < ranges_taken; ++i) ranges[i] = {taken[i].first, taken[i].count};
    *range_count = ranges_taken;
    return code(result);
  } catch (...) {
    *range_count = 0;
    return KVCACHED_FAILED;
  }
}

int kvcached_cache_acquire_ranges(kvcached_cache* handle, const kvcached_range* ranges,
                                  size_t range_count, int64_t wait_ms) {
  if (ranges == nullptr && range_count != 0) return KVCACHED_INVALID;
  return with_cache(handle, [&](Process& process, cache::Cache& cache) {
    return code(cache.acquire_ranges(to_ranges({ranges, range_count}),
                                     process.clock().now() + duration(wait_ms)));
  });
}

int kvcached_cache_release(kvcached_cache* handle, const kvcached_range* ranges,
                           size_t range_count) {
  if (ranges == nullptr && range_count != 0) return KVCACHED_INVALID;
  return with_cache(handle, [&](Process&, cache::Cache& cache) {
    return code(cache.release(to_ranges({ranges, range_count})));
  });
}

int kvcached_cache_expect(kvcached_cache* handle, uint64_t blocks) {
  return with_cache(handle, [&](Process&, cache::Cache& cache) {
    cache.expect(blocks);
    return KVCACHED_OK;
  });
}

int kvcached_cache_in_use(kvcached_cache* handle, uint64_t blocks) {
  return with_cache(handle, [&](Process&, cache::Cache& cache) {
    cache.in_use(blocks);
    return KVCACHED_OK;
  });
}

int kvcached_cache_evicted(kvcached_cache* handle, uint64_t blocks) {
  return with_cache(handle, [&](Process&, cache::Cache& cache) {
    cache.evicted(blocks);
    return KVCACHED_OK;
  });
}

uint64_t kvcached_cache_pressure(kvcached_cache* handle) {
  return ask_cache(handle, [](const cache::Cache& cache) { return cache.pressure(); });
}

const uint64_t* kvcached_cache_pressure_word(kvcached_cache* handle) {
  return ask_cache(handle, [](const cache::Cache& cache) { return cache.pressure_word(); });
}

int kvcached_cache_on_reclaim(kvcached_cache* handle, kvcached_reclaim_function function,
                              void* user) {
  return with_cache(handle, [&](Process&, cache::Cache& cache) {
    if (function == nullptr)
      cache.on_reclaim(nullptr);
    else
      cache.on_reclaim([=](std::uint64_t blocks) { function(handle, blocks, user); });
    return KVCACHED_OK;
  });
}

int kvcached_cache_wait_pressure(kvcached_cache* handle, int64_t wait_ms) {
  return with_cache(handle, [&](Process& process, cache::Cache& cache) {
    return code(cache.wait_pressure(process.clock().now() + duration(wait_ms)));
  });
}

uint64_t kvcached_cache_available(kvcached_cache* handle) {
  return ask_cache(handle, [](const cache::Cache& cache) { return cache.available(); });
}

int kvcached_cache_describe(kvcached_cache* handle, kvcached_cache_info* info) {
  if (info == nullptr || info->struct_size < sizeof(kvcached_cache_info)) return KVCACHED_INVALID;
  return with_cache(handle, [&](Process&, cache::Cache& cache) {
    const cache::CacheStats stats = cache.stats();
    info->blocks = stats.blocks;
    info->live = stats.live;
    info->ready = stats.ready;
    info->stripes = stats.stripes;
    info->backed_bytes = bytes_of(stats.held).value;
    info->warm_bytes = bytes_of(stats.warm).value;
    info->short_grants = stats.short_grants;
    info->lost_blocks = stats.lost_blocks;
    return KVCACHED_OK;
  });
}

int kvcached_cache_stripes(kvcached_cache* handle, kvcached_range* ranges, size_t* count) {
  if (count == nullptr) return KVCACHED_INVALID;
  return with_cache(handle, [&](Process&, cache::Cache& cache) {
    const auto stripes = cache.stripes();
    if (ranges != nullptr)
      for (std::size_t i = 0; i < std::min(*count, stripes.size()); ++i)
        ranges[i] = {stripes[i].first, stripes[i].count};
    *count = stripes.size();
    return KVCACHED_OK;
  });
}

int kvcached_adapter_report(const char* adapter, const char* state) {
  if (adapter == nullptr || state == nullptr) return KVCACHED_INVALID;
  Process* const process = Process::get();
  if (process == nullptr) return KVCACHED_OFF;
  process->report_adapter(adapter, state);
  inform("{}: {}", adapter, state);
  return KVCACHED_OK;
}

}  // extern "C"
