// The doors: what stands in front of each function of the driver. A program gets to a door in one
// of two ways, and what lies behind it depends on the way:
//
//   linked: it called the exported symbol. Behind it is the next library's function of that name.
//
//   looked up: dlsym or cuGetProcAddress gave it ours in place of the driver's own.
//
// One function behind both would hide another library's wrapper, or call it in circles.
//
// Everything here is constant data: dlsym may be called before any constructor has run.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string_view>

#include "shim/driver/default_stream.hpp"
#include "shim/hooks/touches.hpp"

namespace kvcached::entry {

// What lies behind a door; null until it is known. Read by assembly: `linked` first.
struct Behind {
  std::atomic<void*> linked{nullptr};
  std::atomic<void*> looked_up{nullptr};
  hooks::Touches touches = nullptr;  // of work and of nodes
  bool begins_work = false;          // now, not in a graph that is launched later
  // Of a synchronous copy or fill: where its work goes.
  std::optional<driver::DefaultStream> synchronous{};
};

struct Door {
  enum class Kind : std::uint8_t { hook, evidence, node, nvml };

  Kind kind;
  std::string_view symbol;
  std::string_view name;    // by which cuGetProcAddress knows it; empty for nvml
  int version;              // the first CUDA version with this ABI
  bool per_thread_default;  // a stream of 0 is the thread's own
  const void* exported;     // code: the exported symbol
  const void* looked_up;    // code: what look-ups answer
  Behind* behind;
};

// Null when nothing stands in front of that symbol.
const Door* door_of_symbol(std::string_view symbol) noexcept;

// All doors of a function, one for each generation of its ABI; null after the last.
using Generations = std::array<const Door*, 6>;
Generations doors_of_name(std::string_view name) noexcept;

// The one that cuGetProcAddress means: the newest that is not newer than `version`. With flag 2
// only per-thread variants count, where the function has any. Null: none.
const Door* choose(const Generations& doors, int version, std::uint64_t flags) noexcept;

// What is behind the exported symbol whose `behind` this is, resolved at first use. Null: no
// library that would have it is loaded.
void* linked_target(Behind& behind) noexcept;

}  // namespace kvcached::entry
