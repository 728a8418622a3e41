// The one object of this process, as the hooks see it: which addresses are elastic, and what is to
// happen to them. Everything else about it is below this floor.
//
// All functions are thread-safe, never throw, and leave the caller's current context alone. Those
// that make driver calls say so; they call the driver's own functions, never a hook.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "policy/settings.hpp"
#include "policy/units.hpp"
#include "shim/classify/classify.hpp"
#include "shim/driver/driver.hpp"

namespace kvcached {

// One elastic buffer, as the engine knows it.
struct Elastic {
  driver::Address base = 0;
  Bytes size;  // as the engine asked, not rounded
  driver::DeviceId device;
  driver::ContextId context;
  std::uint64_t id = 0;  // never reused within the process, never 0
};

enum class FreeAnswer : std::uint8_t {
  not_ours,  // no elastic buffer holds this address
  freed,     // all work of its context was waited for; the address is unknown from now on
  interior,  // inside an elastic buffer, but not its start: nothing was done
  lost,      // ours and forgotten, but its context is lost: the driver has the error to report
};

// What the pool knows about one GPU's memory, for the view that an engine gets of it.
struct PoolView {
  Bytes elastic_asked;  // sizes of this process's elastic buffers, as asked
  Bytes elastic_held;   // physical memory behind them now
  Bytes members_held;   // physical memory of all other members, as far as the pool knows
};

class Process {
 public:
  // The object, made at the first call. Null whenever calls must pass through untouched: switched
  // off, no usable driver, a forked child, process exit has begun. One atomic load once made.
  static Process* get() noexcept;
  // The same, but never makes it.
  static Process* existing() noexcept;

  // The rule for allocations without a tag.
  const std::optional<MatchRule>& match() const noexcept;

  // Makes an elastic buffer of `size` bytes and answers its address: reserved, and aliased to
  // scratch. False: not possible now (no pool, no addresses left, a lost context); the caller
  // forwards to the driver, nothing has changed. Makes driver calls. pre: kind is not plain.
  bool allocate(Bytes size, classify::Kind kind, driver::ContextId context, driver::DeviceId device,
                driver::Address& out) noexcept;

  // Frees the elastic buffer that starts at `address`. Makes driver calls and waits for the GPU.
  FreeAnswer free(driver::Address address) noexcept;

  // The elastic buffer that holds the address, which may be interior.
  std::optional<Elastic> find(driver::Address address) noexcept;

  // Backs every elastic buffer whole that nobody has claimed. Called before any work is given to
  // the GPU, and only while kvcached_unclaimed is not 0; it becomes 0. Waits until it is done, also
  // when another thread does it. Makes driver calls, legal while a stream captures.
  void back_unclaimed() noexcept;

  // A context is about to be destroyed: from now on no call of ours may use it; returns when none
  // is under way. Always followed by context_closed.
  void context_closing(driver::ContextId context) noexcept;
  // `gone`: it was destroyed with all work in it; its buffers are freed and their charge returned.
  // Otherwise it lives on as before. Makes driver calls without that context.
  void context_closed(driver::ContextId context, bool gone) noexcept;

  // A plain allocation of `size` bytes was refused for lack of memory. Gives back to the driver
  // what the process holds without need; true if trying again may succeed. Makes driver calls.
  bool make_room(driver::DeviceId device, Bytes size) noexcept;

  // None: the engine is shown the GPU as the driver sees it.
  std::optional<PoolView> pool_view(driver::DeviceId device) noexcept;

  // How much plain memory the engine holds on the device now, by the sizes it asked for.
  void note_plain(driver::DeviceId device, Bytes held) noexcept;

 private:
  Process() = default;
  ~Process() = default;
};

}  // namespace kvcached

// How many elastic buffers are neither claimed nor backed whole: not 0 means that the next launch
// or copy has to wait for back_unclaimed. The hooks in front of launches read it and nothing else
// (from assembly, hence the C name). Defined by process.cpp.
extern "C" [[gnu::visibility("hidden")]] std::atomic<std::uint32_t> kvcached_unclaimed;
