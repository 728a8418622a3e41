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

CUresult out_of_memory() noexcept { return CUDA_ERROR_OUT_OF_MEMORY; }

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
#define EVIDENCE(symbol, name, version, per_thread, touches) \
  DOOR(symbol, nullptr, nullptr, &kvcached::hooks::touches, true)
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

}  // namespace kvcached::entry

// Called by the doors of work: where to jump. `target` is the `linked` or `looked_up` of `behind`,
// `saved` are the call's arguments.
extern "C" KVCACHED_HIDDEN void* kvcached_work(kvcached::entry::Behind* behind,
                                               std::atomic<void*>* target,
                                               const std::uint64_t* saved) noexcept {
  using namespace kvcached;
  if (kvcached_unclaimed.load(std::memory_order_acquire) != 0 &&
      !hooks::work_begins(behind->begins_work, behind->touches, hooks::Arguments(saved))) {
    return reinterpret_cast<void*>(&entry::out_of_memory);
  }
  void* next = target->load(std::memory_order_acquire);
  if (next == nullptr) {
    next = entry::linked_target(*behind);
  }
  return next != nullptr ? next : reinterpret_cast<void*>(&entry::absent<CUresult>);
}
