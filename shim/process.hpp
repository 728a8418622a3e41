// The one object of this process: which addresses are elastic, what is to happen to them, and in
// which pools the process is a member. Hooks and the public interface stand on it.
//
// All functions are thread-safe, never throw, and leave the caller's current context alone. Those
// that make driver calls say so; they call the driver's own functions, never a hook.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "policy/settings.hpp"
#include "policy/units.hpp"
#include "shim/cache/cache.hpp"
#include "shim/cache/handles.hpp"
#include "shim/cache/registry.hpp"
#include "shim/classify/classify.hpp"
#include "shim/driver/driver.hpp"
#include "shim/member/agent.hpp"
#include "shim/member/guesses.hpp"
#include "shim/member/member.hpp"

namespace kvcached {

// One elastic buffer, as the engine knows it.
struct Elastic {
  driver::Address base = 0;
  Bytes size;  // as the engine asked, not rounded
  driver::DeviceId device;
  driver::ContextId context;
  std::uint64_t id = 0;      // never reused within the process, never 0
  bool whole = false;        // backed for good: its pages stay what they are
  bool sync_memops = false;  // as set_sync_memops left it
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

// This process's plain memory on one GPU, by the sizes it asked for.
struct PlainMemory {
  Bytes held;
  Bytes peak;  // the most that was held
};
// Who counts it: the hooks, which stand above. Null until they have counted something.
using PlainReport = PlainMemory (*)(driver::DeviceId) noexcept;
inline std::atomic<PlainReport> plain_report{nullptr};

// Whether look-ups answer with the doors of work, and with those of nodes. Settled once for the
// process (entry/lookup.cpp), perhaps before the settings are read: a rule that came later must not
// make buffers that no door would back.
enum class Shown : std::uint8_t { unsettled, no, yes };
inline std::atomic<Shown> work_shown{Shown::unsettled};
inline std::atomic<Shown> nodes_shown{Shown::unsettled};
// `rule`: buffers may be made that nobody claims; `args`: and be backed by what arguments name. The
// first call decides. Work comes last: who finds it settled finds both.
inline void settle_shown(bool rule, bool args) noexcept {
  Shown none = Shown::unsettled;
  nodes_shown.compare_exchange_strong(none, rule && args ? Shown::yes : Shown::no);
  none = Shown::unsettled;
  work_shown.compare_exchange_strong(none, rule ? Shown::yes : Shown::no);
}

class Process {
 public:
  // The object, made at the first call. Null whenever calls must pass through untouched: switched
  // off, no usable driver. One atomic load once made. A forked child gets one of its own. Once
  // process exit began, nothing is allocated and the driver is not called any more.
  static Process* get() noexcept;
  // The same, but never makes it.
  static Process* existing() noexcept;

  // What an allocation of the calling thread is, by its tags, the rule, and who calls.
  classify::Kind kind_of(Bytes size) noexcept;

  // Makes an elastic buffer of `size` bytes and answers its address: reserved, and aliased to
  // scratch. False: not possible now (no pool, no addresses left, a lost context); the caller
  // forwards to the driver, nothing has changed. Makes driver calls. pre: kind is not plain.
  bool allocate(Bytes size, classify::Kind kind, driver::ContextId context, driver::DeviceId device,
                driver::Address& out) noexcept;

  // Frees the elastic buffer that starts at `address`. Makes driver calls and waits for the GPU.
  FreeAnswer free(driver::Address address) noexcept;

  // The elastic buffer that holds the address, which may be interior.
  std::optional<Elastic> find(driver::Address address) noexcept;

  // Whether synchronous copies and fills of the buffer that holds the address wait; the doors of
  // work see to it while kvcached_watched.sync_memops counts any. Ends with the buffer. True where
  // it was otherwise before.
  bool set_sync_memops(driver::Address address, bool on) noexcept;

  // Backs every elastic buffer whole that nobody has claimed. Called before any work is given to
  // the GPU, and only while kvcached_watched.unclaimed is not 0; it becomes 0, but for buffers
  // that are just being claimed. Waits until it is done, also when another thread does it. Makes
  // driver calls, legal while a stream captures. False: the GPU had no memory for it after all, in
  // spite of the pool's word; the work must not be launched (it would lose what it writes), and the
  // engine is to be told that memory is out.
  bool back_unclaimed() noexcept;

  // The same for what work is known to use and nothing else: only where the user has promised that
  // arguments name it (KVCACHED_HINTS). kvcached_watched.unclaimed counts those not whole.
  bool back_touched(std::span<const member::Touch> touched) noexcept;
  bool arguments_name_memory() const noexcept;
  // Every buffer that is neither claimed nor whole lies within.
  std::pair<driver::Address, driver::Address> unclaimed_range() const noexcept;

  // A context is about to be destroyed: from now on no call of ours may use it; returns when none
  // is under way. Always followed by context_closed.
  void context_closing(driver::ContextId context) noexcept;
  // `gone`: it was destroyed with all work in it; its buffers are freed and their charge returned.
  // Otherwise it lives on as before. Makes driver calls without that context.
  void context_closed(driver::ContextId context, bool gone) noexcept;

  // Memory of `size` bytes is about to be taken beside the pool. Where the GPU has not enough for
  // it and for what nobody has claimed, that is backed first: it was handed out earlier. Makes
  // driver calls, but none while kvcached_watched.unclaimed is 0.
  void keep_promises(driver::DeviceId device, Bytes size) noexcept;

  // Plain memory of `size` bytes was taken. The pool is told soon, not only when the house is kept.
  void took_plain(driver::DeviceId device, Bytes size) noexcept;

  // A plain allocation of `size` bytes was refused for lack of memory. Gives back to the driver
  // what the process holds without need; true if trying again may succeed. Makes driver calls.
  bool make_room(driver::DeviceId device, Bytes size) noexcept;

  // None: the engine is shown the GPU as the driver sees it.
  std::optional<PoolView> pool_view(driver::DeviceId device) noexcept;

  // ---- For the calls of the public interface. The references live as long as the process.

  cache::Registry& registry() noexcept;
  cache::Handles& handles() noexcept;
  member::Agent& agent() noexcept;
  const Settings& settings() const noexcept;
  const Clock& clock() const noexcept;

  // This process in the pool of the device; joins at the first call. Null: that pool cannot be
  // used.
  member::Member* member(driver::DeviceId device) noexcept;
  // The device of the calling thread's current context, else the first one.
  driver::DeviceId current_device() noexcept;

  // A buffer is claimed now, or whole: what was kept for backing it at the first launch goes back.
  void claimed(const std::shared_ptr<cache::Buffer>& buffer) noexcept;
  // One attempt to back it for good.
  cache::Result back_whole(const std::shared_ptr<cache::Buffer>& buffer) noexcept;

  void report_adapter(std::string_view adapter, std::string_view state) noexcept;

 private:
  struct State;
  explicit Process(State& state) noexcept : state_(state) {}
  ~Process() = default;
  static Process* make() noexcept;

  State& state_;
};

// Why the doors of work do not lead straight to the driver: they do while all of it is 0. They read
// it as one word (from assembly, hence the C name). Defined by process.cpp.
struct alignas(8) Watched {
  // Elastic buffers that are neither claimed nor backed whole: the next launch or copy has to wait
  // for back_unclaimed.
  std::atomic<std::uint32_t> unclaimed{0};
  // Buffers whose synchronous copies and fills wait.
  std::atomic<std::uint32_t> sync_memops{0};
};
static_assert(sizeof(Watched) == 8);

}  // namespace kvcached

extern "C" [[gnu::visibility("hidden")]] kvcached::Watched kvcached_watched;
