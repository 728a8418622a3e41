#include "shim/entry/lookup.hpp"

#include <dlfcn.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "shim/adapters/python.hpp"
#include "shim/driver/real_dlsym.hpp"
#include "shim/driver/symbols.hpp"
#include "shim/process.hpp"

namespace kvcached::entry {

// In two registers.
struct Found {
  void* value;
  std::uint64_t answered;
};

namespace {

// Read here and not by the settings: this runs in programs that never come near a GPU. Not before
// a name of ours is looked up: libraries call dlsym so early that there is no environment yet.
// Not KVCACHED_DISABLE.
bool switched_on() noexcept {
  static constinit std::atomic<Shown> on{Shown::unsettled};
  Shown now = on.load(std::memory_order_relaxed);
  if (now == Shown::unsettled) {
    const char* disable = std::getenv("KVCACHED_DISABLE");
    now = disable == nullptr || std::strcmp(disable, "1") != 0 ? Shown::yes : Shown::no;
    on.store(now, std::memory_order_relaxed);
  }
  return now == Shown::yes;
}

// Whether the program gets this door: a rule may make buffers that nobody claims, and for nodes
// they are backed by what arguments name. Settled at the first door of either kind.
bool shown(Door::Kind kind) noexcept {
  if (kind != Door::Kind::evidence && kind != Door::Kind::node) return true;
  if (work_shown.load() == Shown::unsettled) {
    const char* match = std::getenv("KVCACHED_MATCH");
    const char* hints = std::getenv("KVCACHED_HINTS");
    settle_shown(match != nullptr && *match != '\0',
                 hints != nullptr && std::strcmp(hints, "args") == 0);
  }
  return (kind == Door::Kind::node ? nodes_shown : work_shown).load() == Shown::yes;
}

const char* library_name(const Door& door) noexcept {
  return door.kind == Door::Kind::nvml ? "libnvidia-ml.so" : "libcuda.so";
}

// What the program gets in place of `real`, which is the driver's own.
void* in_place_of(const Door& door, void* real) noexcept {
  if (door.kind != Door::Kind::nvml) {
    driver::note_driver(real);
  }
  void* behind = nullptr;
  if (!door.behind->looked_up.compare_exchange_strong(behind, real) && behind != real) {
    return real;  // a second driver in this process: one door cannot lead to both
  }
  if (!shown(door.kind)) return real;
  return const_cast<void*>(door.looked_up);
}

// The door of the ABI that `real` has, which the driver gave for this request. The driver's symbol
// table tells; only where the address is no symbol's, the rules of the request do. So a generation
// that is newer than our table is never taken for one that we know.
const Door* door_of(const char* name, int version, cuuint64_t flags, const void* real) noexcept {
  const Generations doors = doors_of_name(name);
  void* library = doors[0] == nullptr ? nullptr : driver::library_of(real);
  if (library == nullptr) {
    return nullptr;
  }
  const Door* chosen = choose(doors, version, flags);
  const auto is_at = [&](const Door* door) {
    return door != nullptr && driver::real_dlsym()(library, door->symbol.data()) == real;
  };
  if (is_at(chosen)) {
    return chosen;
  }
  for (const Door* door : doors) {
    if (is_at(door)) return door;
  }
  Dl_info info{};
  const bool other_symbol =
      dladdr(real, &info) != 0 && info.dli_saddr == real && info.dli_sname != nullptr;
  return other_symbol ? nullptr : chosen;
}

void* answer(const char* name, int version, cuuint64_t flags, void* real) noexcept {
  if (real == nullptr || name == nullptr || !switched_on() || driver::real_dlsym() == nullptr) {
    return real;
  }
  const Door* door = door_of(name, version, flags, real);
  if (door == nullptr || real == door->exported || real == door->looked_up) {
    return real;
  }
  return in_place_of(*door, real);
}

bool is_loaded(const char* library) noexcept {
  void* handle = dlopen(library, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
  if (handle != nullptr) dlclose(handle);
  return handle != nullptr;
}

Found look_up(driver::DlsymFunction real, const Door& door, void* handle) noexcept {
  const char* symbol = door.symbol.data();
  void* found = real(handle, symbol);
  if (found == door.exported) {
    // A search of everything finds our export first. Without us it would have found the next one,
    // or nothing.
    const char* driver_name = door.kind == Door::Kind::nvml ? "libnvidia-ml.so.1" : "libcuda.so.1";
    return {is_loaded(driver_name) || real(RTLD_NEXT, symbol) != nullptr ? found : nullptr, 1};
  }
  if (found == nullptr || !driver::lies_in(found, library_name(door))) {
    return {found, 1};
  }
  return {in_place_of(door, found), 1};
}

bool may_concern_us(std::string_view name) noexcept {
  return name.starts_with("cu") || name.starts_with("nvml");
}

}  // namespace

CUresult get_proc_address(CUresult (*next)(const char*, void**, int, cuuint64_t), const char* name,
                          void** out, int version, cuuint64_t flags) noexcept {
  const CUresult result = next(name, out, version, flags);
  if (result == CUDA_SUCCESS && out != nullptr) {
    *out = answer(name, version, flags, *out);
  }
  return result;
}

CUresult get_proc_address_v2(CUresult (*next)(const char*, void**, int, cuuint64_t,
                                              CUdriverProcAddressQueryResult*),
                             const char* name, void** out, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult* status) noexcept {
  const CUresult result = next(name, out, version, flags, status);
  if (result == CUDA_SUCCESS && out != nullptr) {
    *out = answer(name, version, flags, *out);
  }
  return result;
}

void note_if_driver(const Door& door, const void* function) noexcept {
  if (door.kind != Door::Kind::nvml && driver::lies_in(function, library_name(door))) {
    driver::note_driver(function);
  }
}

}  // namespace kvcached::entry

// Called by our dlsym for every look-up of the process: the result, or libc's dlsym to go on to.
// Uses no stdio, no allocation and no lock beyond the loader's own, which dlsym takes anyway.
extern "C" [[gnu::visibility("hidden")]] kvcached::entry::Found kvcached_dlsym(
    void* handle, const char* name, const void* caller) noexcept {
  using namespace kvcached;
  using namespace kvcached::entry;
  const auto real = driver::real_dlsym();
  if (real == nullptr) {
    return {nullptr, 1};
  }
  const Found go_on{reinterpret_cast<void*>(real), 0};
  if (name == nullptr) {
    return go_on;
  }
  const std::string_view wanted = name;
  if (wanted.starts_with("PyInit_")) {
    if (switched_on()) adapters::python_seen();
    return go_on;
  }
  const Door* door = may_concern_us(wanted) ? door_of_symbol(wanted) : nullptr;
  // RTLD_NEXT is asked by wrappers, for what comes after them. The driver asks for itself.
  if (door == nullptr || !switched_on() || handle == RTLD_NEXT ||
      driver::lies_in(caller, library_name(*door))) {
    return go_on;
  }
  return look_up(real, *door, handle);
}
