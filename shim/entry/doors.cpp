#include "shim/entry/doors.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <type_traits>

#include "shim/driver/cuda_abi.hpp"
#include "shim/driver/real_dlsym.hpp"
#include "shim/driver/symbols.hpp"
#include "shim/entry/lookup.hpp"
#include "shim/hooks/hooks.hpp"
#include "shim/process.hpp"

#define KVCACHED_HIDDEN [[gnu::visibility("hidden")]]

namespace kvcached::entry {
namespace {

// The answer of a function that no loaded library has.
template <class R>
R absent() noexcept {
  if constexpr (std::is_same_v<R, hooks::NvmlResult>) {
    return hooks::NvmlResult::library_not_found;
  } else {
    return CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND;
  }
}

// Of a function that copies or fills and is not given a stream to do so, by the names that the
// driver gives them.
constexpr std::optional<driver::DefaultStream> synchronous(std::string_view symbol,
                                                           int per_thread) noexcept {
  const bool memory = symbol.starts_with("cuMemcpy") || symbol.starts_with("cuMemset");
  if (!memory || symbol.find("Async") != std::string_view::npos) return std::nullopt;
  return per_thread != 0 ? driver::DefaultStream::per_thread : driver::DefaultStream::legacy;
}

template <class Next>
struct Pair {
  Next linked;
  Next looked_up;
};

// A hook with what is behind its door as the first argument.
template <auto hook, Behind& behind, class F = decltype(hook)>
struct Bound;
template <auto hook, Behind& behind, class R, class... A>
struct Bound<hook, behind, R (*)(R (*)(A...), A...) noexcept> {
  using Next = R (*)(A...);
  static R linked(A... arguments) noexcept {
    auto next = reinterpret_cast<Next>(linked_target(behind));
    return next == nullptr ? absent<R>() : hook(next, arguments...);
  }
  static R looked_up(A... arguments) noexcept {
    void* next = behind.looked_up.load(std::memory_order_acquire);
    return hook(reinterpret_cast<Next>(next), arguments...);
  }
  static constexpr Pair<Next> kPair{linked, looked_up};
};

}  // namespace
}  // namespace kvcached::entry

// What the assembly and this file share.
#define HOOK(symbol, name, version, per_thread, meaning) NVML(symbol, meaning)
#define DOOR(symbol, ...)                                                                \
  extern "C" KVCACHED_HIDDEN constinit kvcached::entry::Behind kvcached_behind_##symbol; \
  constinit kvcached::entry::Behind kvcached_behind_##symbol{__VA_ARGS__};               \
  extern "C" KVCACHED_HIDDEN const char kvcached_exported_##symbol[];                    \
  extern "C" KVCACHED_HIDDEN const char kvcached_looked_up_##symbol[];
#define EVIDENCE(symbol, name, version, per_thread, touches)      \
  DOOR(symbol, nullptr, nullptr, &kvcached::hooks::touches, true, \
       kvcached::entry::synchronous(#symbol, per_thread))
#define NODE(symbol, name, version, per_thread, touches) \
  DOOR(symbol, nullptr, nullptr, &kvcached::hooks::touches, false)
#define NVML(symbol, meaning)                                                                     \
  DOOR(symbol)                                                                                    \
  extern "C" KVCACHED_HIDDEN const decltype(kvcached::entry::Bound<                               \
                                            &kvcached::meaning, kvcached_behind_##symbol>::kPair) \
      kvcached_hook_##symbol;                                                                     \
  constinit const decltype(kvcached::entry::Bound<&kvcached::meaning,                             \
                                                  kvcached_behind_##symbol>::kPair)               \
      kvcached_hook_##symbol =                                                                    \
          kvcached::entry::Bound<&kvcached::meaning, kvcached_behind_##symbol>::kPair;
#include "shim/entry/table.inc"
#undef HOOK
#undef NVML
#undef EVIDENCE
#undef NODE
#undef DOOR

namespace kvcached::entry {
namespace {

#define ROW(kind, symbol, name, version, per_thread) \
  Door{Door::Kind::kind,                             \
       #symbol,                                      \
       name,                                         \
       version,                                      \
       (per_thread) != 0,                            \
       kvcached_exported_##symbol,                   \
       kvcached_looked_up_##symbol,                  \
       &kvcached_behind_##symbol},
#define HOOK(symbol, name, version, per_thread, meaning) \
  ROW(hook, symbol, #name, version, per_thread)
#define NVML(symbol, meaning) ROW(nvml, symbol, "", 0, 0)
#define EVIDENCE(symbol, name, version, per_thread, touches) \
  ROW(evidence, symbol, #name, version, per_thread)
#define NODE(symbol, name, version, per_thread, touches) \
  ROW(node, symbol, #name, version, per_thread)
constexpr std::array kDoors{
#include "shim/entry/table.inc"
};
#undef HOOK
#undef NVML
#undef EVIDENCE
#undef NODE
#undef ROW

// The driver marks with "ptds" what has no stream among its arguments, with "ptsz" what has one.
static_assert(std::all_of(kDoors.begin(), kDoors.end(), [](const Door& door) {
  return door.symbol.ends_with("_ptds") ==
         (synchronous(door.symbol, door.per_thread_default) == driver::DefaultStream::per_thread);
}));

using Index = std::array<std::uint16_t, kDoors.size()>;

constexpr Index sorted_by(std::string_view Door::*key) {
  Index index{};
  for (std::size_t i = 0; i < index.size(); ++i) {
    index[i] = static_cast<std::uint16_t>(i);
  }
  std::sort(index.begin(), index.end(),
            [key](auto a, auto b) { return kDoors[a].*key < kDoors[b].*key; });
  return index;
}

constexpr Index kBySymbol = sorted_by(&Door::symbol);
constexpr Index kByName = sorted_by(&Door::name);

Index::const_iterator first_not_below(const Index& index, std::string_view Door::*key,
                                      std::string_view wanted) noexcept {
  return std::lower_bound(index.begin(), index.end(), wanted,
                          [key](auto i, std::string_view w) { return kDoors[i].*key < w; });
}

}  // namespace

const Door* door_of_symbol(std::string_view symbol) noexcept {
  const auto found = first_not_below(kBySymbol, &Door::symbol, symbol);
  if (found == kBySymbol.end() || kDoors[*found].symbol != symbol) {
    return nullptr;
  }
  return &kDoors[*found];
}

Generations doors_of_name(std::string_view name) noexcept {
  Generations all{};
  std::size_t count = 0;
  for (auto i = first_not_below(kByName, &Door::name, name);
       i != kByName.end() && kDoors[*i].name == name && count + 1 < all.size(); ++i) {
    all[count++] = &kDoors[*i];
  }
  return all;
}

const Door* choose(const Generations& doors, int version, std::uint64_t flags) noexcept {
  const bool wants_per_thread = (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) != 0;
  const Door* best[2] = {nullptr, nullptr};
  bool has_per_thread = false;
  for (const Door* door : doors) {
    if (door == nullptr) break;
    has_per_thread = has_per_thread || door->per_thread_default;
    const Door*& newest = best[door->per_thread_default ? 1 : 0];
    if (door->version <= version && (newest == nullptr || newest->version < door->version)) {
      newest = door;
    }
  }
  return best[wants_per_thread && has_per_thread ? 1 : 0];
}

void* linked_target(Behind& behind) noexcept {
  if (void* known = behind.linked.load(std::memory_order_acquire)) {
    return known;
  }
  const auto door = std::find_if(kDoors.begin(), kDoors.end(),
                                 [&](const Door& d) { return d.behind == &behind; });
  const auto real = driver::real_dlsym();
  if (real == nullptr) {
    return nullptr;
  }
  void* found = real(RTLD_NEXT, door->symbol.data());
  if (found == nullptr) {
    // The program's library has the driver as a dependency of its own, out of our sight.
    const char* name = door->kind == Door::Kind::nvml ? "libnvidia-ml.so.1" : "libcuda.so.1";
    void* library = dlopen(name, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
    found = library == nullptr ? nullptr : real(library, door->symbol.data());
  }
  if (found != nullptr) {
    note_if_driver(*door, found);
    behind.linked.store(found, std::memory_order_release);
  }
  return found;
}

// In two registers: the function to go on to, or the call's answer.
struct Onward {
  std::uint64_t value;
  std::uint64_t answered;
};

}  // namespace kvcached::entry

// Called by the doors of work. `target` is the `linked` or `looked_up` of `behind`, `saved` are the
// call's arguments.
extern "C" KVCACHED_HIDDEN kvcached::entry::Onward kvcached_work(
    kvcached::entry::Behind* behind, std::atomic<void*>* target,
    const std::uint64_t* saved) noexcept {
  using namespace kvcached;
  const hooks::Arguments call(saved);
  const auto answer = [](CUresult result) { return entry::Onward{std::uint64_t{result}, 1}; };
  if (kvcached_watched.unclaimed.load(std::memory_order_acquire) != 0 &&
      !hooks::work_begins(behind->begins_work, behind->touches, call)) {
    return answer(CUDA_ERROR_OUT_OF_MEMORY);
  }
  void* next = target->load(std::memory_order_acquire);
  if (next == nullptr) {
    next = entry::linked_target(*behind);
  }
  if (next == nullptr) {
    return answer(entry::absent<CUresult>());
  }
  if (behind->synchronous && kvcached_watched.sync_memops.load(std::memory_order_acquire) != 0 &&
      hooks::has_to_wait(behind->touches, call)) {
    return answer(hooks::call_and_wait(next, call, *behind->synchronous));
  }
  return {reinterpret_cast<std::uint64_t>(next), 0};
}
