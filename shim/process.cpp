#include "shim/process.hpp"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "shim/classify/callers.hpp"
#include "shim/classify/tags.hpp"
#include "shim/driver/cuda.hpp"
#include "shim/log.hpp"
#include "shim/member/duties.hpp"
#include "shim/member/figures.hpp"
#include "shim/member/pool_bell.hpp"
#include "shim/member/room.hpp"

constinit kvcached::Watched kvcached_watched;

namespace kvcached {

namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMaxDevices = 64;
constexpr Bytes kMuchPlain{16ULL << 20};
constexpr Duration kRoomPatience = milliseconds(200);  // for our own warm memory to go
constexpr Duration kOthersPatience = std::chrono::seconds(30);
// So long an order to trim stands for engines that look only now and then.
constexpr Duration kTrimPatience = std::chrono::seconds(5);

// Held by fork, in this order, so that a child finds them free, and each membership of the parent
// where it can let go of it.
std::mutex g_making;
std::mutex g_joining;
std::atomic<Process*> g_process{nullptr};
std::atomic<bool> g_passive{false};  // switched off, unusable, or the process exits

}  // namespace

struct Device {
  std::mutex mutex;  // guards joining
  bool tried = false;
  // Written once under the mutex, read freely afterwards.
  std::atomic<member::Member*> member{nullptr};
  std::unique_ptr<cache::Scratch> scratch;
  member::Outline outline;  // when the agent last looked; it alone uses it
  Instant trimmed_at{};     // the agent's, as the next
  bool told_removed = false;
};

struct Process::State final : public member::Housekeeper {
  State(Settings s, driver::Driver& cuda)
      : settings(std::move(s)), driver(cuda), agent(registry, cuda, *this, bell, steady_clock()) {}

  Device* device(driver::DeviceId id) noexcept {
    if (id.ordinal < 0 || static_cast<std::size_t>(id.ordinal) >= kMaxDevices) return nullptr;
    return &devices[static_cast<std::size_t>(id.ordinal)];
  }
  member::Member* join(driver::DeviceId id) noexcept;
  bool keep_house() noexcept override;
  // Tells the pool what it plans with. Whether a caller wants more than there is; none: no memory
  // to find out, what was told before stands.
  std::optional<bool> publish(driver::DeviceId id, member::Member& m) noexcept;
  bool obey() noexcept override;
  // Whether the GPU has this much beside what is kept for unclaimed buffers.
  bool has_free(driver::DeviceId id, Bytes size) noexcept;
  // For a buffer that nobody can find any more.
  void forget(const std::shared_ptr<cache::Buffer>& buffer) noexcept;
  // Destroys a buffer that nobody can find any more, now or later.
  cache::Result end(const std::shared_ptr<cache::Buffer>& buffer) noexcept;

  Settings settings;
  classify::Callers callers;
  std::atomic<std::uint64_t> matched{0};  // allocations that met the rule but for its count
  driver::Driver& driver;
  cache::Registry registry;
  member::PoolBell bell;
  member::Agent agent;
  std::array<Device, kMaxDevices> devices;

  member::Guesses guesses{kvcached_watched.unclaimed, steady_clock()};

  cache::Handles handles;

  std::mutex adapter_mutex;
  std::string adapter;
  std::string adapter_state;
};

// ---- Life: made at the first call, told of fork and exit.

namespace {

void before_fork() noexcept {
  g_making.lock();
  g_joining.lock();
}
void after_fork() noexcept {
  g_joining.unlock();
  g_making.unlock();
}

}  // namespace

Process* Process::make() noexcept {
  // Before the first lock is taken. The child's threads, locks and CUDA state are the parent's and
  // unusable: it forgets all of it, and lets go of the parent's membership, whose life the open
  // file would prolong.
  static constinit std::atomic<bool> fork_is_told{false};
  if (!fork_is_told.exchange(true)) {
    pthread_atfork(&before_fork, &after_fork, [] {
      if (Process* self = g_process.exchange(nullptr))
        for (Device& device : self->state_.devices)
          if (auto* member = device.member.load()) member->abandon();
      kvcached_watched.unclaimed.store(0);
      kvcached_watched.sync_memops.store(0);
      after_fork();
    });
  }
  const std::lock_guard lock(g_making);
  if (Process* made = g_process.load(std::memory_order_acquire)) return made;
  if (g_passive.load(std::memory_order_relaxed)) return nullptr;
  static bool read = false;
  static bool hooked = false;
  try {
    std::vector<std::string> complaints;
    Settings settings =
        read_settings([](const char* name) { return std::getenv(name); }, complaints);
    if (!read) {
      read = true;
      log_start(settings.log, settings.log_file.c_str());
      for (const std::string& complaint : complaints) warn("{}", complaint);
    }
    // What look-ups were answered by stays: a rule without the doors would lose what work writes.
    settle_shown(settings.match.has_value(), settings.hints_args);
    if (settings.match && work_shown.load() == Shown::no) {
      static bool told = false;
      if (!std::exchange(told, true))
        warn("KVCACHED_MATCH was set after the program had found the driver: it has no effect");
      settings.match.reset();
    }
    if (nodes_shown.load() == Shown::no) settings.hints_args = false;
    if (settings.disabled) {
      g_passive.store(true, std::memory_order_relaxed);
      return nullptr;
    }
    driver::Driver* cuda = driver::cuda_driver();
    if (cuda == nullptr) return nullptr;
    auto state = std::make_unique<State>(std::move(settings), *cuda);
    auto* process = new Process(*state.release());
    if (!hooked) {
      hooked = true;
      std::atexit([] {
        g_passive.store(true);
        driver::exit_began();
        if (Process* self = existing()) self->state_.agent.stop();
      });
    }
    g_process.store(process, std::memory_order_release);
    return process;
  } catch (...) {
    return nullptr;  // no memory: pass through now, try again at the next call
  }
}

Process* Process::get() noexcept {
  if (Process* made = g_process.load(std::memory_order_acquire)) return made;
  if (g_passive.load(std::memory_order_relaxed)) return nullptr;
  return make();
}

Process* Process::existing() noexcept { return g_process.load(std::memory_order_acquire); }

// ---- Pools.

member::Member* Process::State::join(driver::DeviceId id) noexcept {
  Device* const d = device(id);
  if (d == nullptr) return nullptr;
  if (auto* joined = d->member.load(std::memory_order_acquire)) return joined;
  const std::lock_guard lock(d->mutex);
  if (d->tried) return d->member.load(std::memory_order_relaxed);
  ledger::GpuUuid uuid{};
  Bytes total;
  if (driver::device_uuid(id, uuid) != driver::Status::ok ||
      driver::device_memory(id, total) != driver::Status::ok)
    return nullptr;  // no device, or not initialized yet: asked again at the next allocation
  d->tried = true;
  const auto free = driver::free_memory(driver, id);
  std::unique_lock joining(g_joining);  // driver calls may fork
  auto made = member::Member::join(settings, uuid, total, free, steady_clock());
  if (!made) return nullptr;
  d->scratch.reset(new (std::nothrow) cache::Scratch(driver, id));
  if (!d->scratch) return nullptr;
  {
    const std::lock_guard adapter_lock(adapter_mutex);
    if (!adapter.empty()) made->ledger().report_adapter(adapter, adapter_state);
  }
  d->member.store(made.release(), std::memory_order_release);
  joining.unlock();
  bell.listen(d->member.load()->ledger());
  try {
    inform("joined the pool of {}: {} MiB", ledger::to_string(uuid),
           bytes_of(d->member.load()->ledger().pool()).value >> 20);
  } catch (const std::bad_alloc&) {  // for the words
  }
  return d->member.load(std::memory_order_relaxed);
}

member::Member* Process::member(driver::DeviceId device) noexcept { return state_.join(device); }

driver::DeviceId Process::current_device() noexcept {
  driver::ContextId context;
  driver::DeviceId device;
  const bool known = driver::current_context(context, device) == driver::Status::ok;
  return known ? device : driver::DeviceId{0};
}

std::optional<PoolView> Process::pool_view(driver::DeviceId device) noexcept {
  Device* const d = state_.device(device);
  member::Member* const m = d != nullptr ? d->member.load(std::memory_order_acquire) : nullptr;
  if (m == nullptr) return std::nullopt;
  PoolView view;
  try {
    for (const auto& buffer : state_.registry.buffers()) {
      if (buffer->device() != device) continue;
      view.elastic_asked += buffer->requested();
      view.elastic_held += bytes_of(buffer->held());
    }
    const ledger::Snapshot snapshot = m->ledger().snapshot();
    view.members_held = bytes_of(snapshot.charged.minus_clamped(m->ledger().charged()));
  } catch (...) {
    return std::nullopt;
  }
  view.elastic_held += d->scratch->bytes();
  return view;
}

std::optional<bool> Process::State::publish(driver::DeviceId id, member::Member& m) noexcept {
  auto figures = member::figures_of(registry, id, m.longest_request());
  if (!figures) return std::nullopt;
  if (const PlainReport report = plain_report.load()) {
    const PlainMemory plain = report(id);
    figures->plain = plain.held;
    figures->plain_peak = plain.peak;
  }
  if (m.sequence().described()) figures->fitting = m.sequence().current();
  m.ledger().publish(*figures);
  return static_cast<bool>(figures->want);
}

bool Process::State::keep_house() noexcept {
  bool busy = false;
  driver.tend();
  for (std::size_t i = 0; i < kMaxDevices; ++i) {
    auto* const m = devices[i].member.load(std::memory_order_acquire);
    if (m == nullptr) continue;
    const driver::DeviceId id{static_cast<int>(i)};
    devices[i].scratch->tend();
    if (m->ledger().removed() && !std::exchange(devices[i].told_removed, true))
      warn("the pool's file was removed: engines that start now do not share with this one");
    busy = publish(id, *m).value_or(true) || busy;
    if (const auto free = driver::free_memory(driver, id))
      busy = static_cast<bool>(m->ledger().reap(*free)) || busy;
  }
  return busy;
}

bool Process::State::obey() noexcept {
  bool waiting = false;
  for (std::size_t i = 0; i < kMaxDevices; ++i) {
    auto* const m = devices[i].member.load(std::memory_order_acquire);
    if (m == nullptr) continue;
    const driver::DeviceId id{static_cast<int>(i)};
    const member::Outline outline = member::outline_of(registry, id);
    const Instant now = steady_clock().now();
    const bool longer_or_shorter =
        m->sequence().described() &&
        m->sequence().look(m->ledger().reach(), outline.caches, now, registry, id);
    if ((outline != devices[i].outline || longer_or_shorter) && publish(id, *m).has_value())
      devices[i].outline = outline;
    waiting = waiting || outline.waiting;
    const ledger::Duty duty = m->ledger().duty();
    if (duty.trim) {
      devices[i].trimmed_at = now;
      member::trim(registry, id);
      m->ledger().trimmed(*duty.trim);
    }
    const Instant trimmed = devices[i].trimmed_at;
    const bool trimming = trimmed != Instant() && now - trimmed < kTrimPatience;
    member::obey(duty, trimming, registry, id);
  }
  return waiting;
}

void Process::report_adapter(std::string_view adapter, std::string_view state) noexcept {
  const std::lock_guard lock(state_.adapter_mutex);
  try {
    state_.adapter = adapter;
    state_.adapter_state = state;
  } catch (...) {
    return;  // no memory for two words: not shown
  }
  for (Device& d : state_.devices)
    if (auto* m = d.member.load(std::memory_order_acquire))
      m->ledger().report_adapter(adapter, state);
}

// ---- Allocations.

classify::Kind Process::kind_of(Bytes size) noexcept {
  return classify::decide(
      size, classify::tag_depth(), state_.settings.match,
      [this](const MatchRule& rule) { return state_.callers.on_stack(rule); },
      [this] { return state_.matched.fetch_add(1, std::memory_order_relaxed) + 1; });
}

bool Process::allocate(Bytes size, classify::Kind kind, driver::ContextId context,
                       driver::DeviceId device, driver::Address& out) noexcept {
  if (g_passive.load(std::memory_order_relaxed)) return false;
  member::Member* const m = state_.join(device);
  if (m == nullptr) return false;
  // A guess is paid for ahead: should nobody claim it, it must be backed before the first launch.
  const bool guess = kind == classify::Kind::unclaimed;
  const Pages kept = guess ? pages_up(size) : Pages{};
  if (guess && (!state_.has_free(device, bytes_of(kept)) || !m->charge(kept))) return false;
  std::shared_ptr<cache::Buffer> buffer;
  const cache::Ground ground{state_.driver, *m, *state_.device(device)->scratch};
  const cache::Result made = cache::Buffer::create(ground, size, context, buffer);
  if (made != cache::Result::ok) {
    if (buffer != nullptr) state_.end(buffer);
    if (guess) m->uncharge(kept);
    return false;
  }
  if (guess && !state_.guesses.add(*m, buffer, kept)) {
    m->uncharge(kept);
    state_.end(buffer);
    return false;
  }
  if (!state_.registry.add(buffer)) {
    claimed(buffer);
    state_.end(buffer);
    return false;
  }
  out = buffer->base();
  inform("an allocation of {} KiB at {:#x} is elastic, by {}", size.value >> 10, out,
         guess ? "rule" : "tag");
  state_.agent.wake();
  return true;
}

void Process::State::forget(const std::shared_ptr<cache::Buffer>& buffer) noexcept {
  guesses.settle(buffer);
  if (buffer->end_sync_memops()) kvcached_watched.sync_memops.fetch_sub(1);
}

cache::Result Process::State::end(const std::shared_ptr<cache::Buffer>& buffer) noexcept {
  const cache::Result destroyed = buffer->destroy();
  if (destroyed == cache::Result::not_now) {
    registry.bury(buffer);
    agent.wake();
  }
  return destroyed;
}

bool Process::State::has_free(driver::DeviceId id, Bytes size) noexcept {
  Device* const d = device(id);
  auto* const m = d != nullptr ? d->member.load(std::memory_order_acquire) : nullptr;
  const auto free = m != nullptr ? driver::free_memory(driver, id) : std::nullopt;
  return !free || *free >= size + bytes_of(guesses.kept(*m));
}

void Process::keep_promises(driver::DeviceId device, Bytes size) noexcept {
  if (kvcached_watched.unclaimed.load(std::memory_order_acquire) != 0 &&
      !state_.has_free(device, size))
    back_unclaimed();
}

void Process::claimed(const std::shared_ptr<cache::Buffer>& buffer) noexcept {
  state_.guesses.settle(buffer);
}

cache::Result Process::back_whole(const std::shared_ptr<cache::Buffer>& buffer) noexcept {
  return state_.guesses.back_whole(buffer);
}

bool Process::back_unclaimed() noexcept { return state_.guesses.back_all(); }

bool Process::back_touched(std::span<const member::Touch> touched) noexcept {
  return state_.guesses.back(touched);
}

bool Process::arguments_name_memory() const noexcept { return state_.settings.hints_args; }

std::pair<driver::Address, driver::Address> Process::unclaimed_range() const noexcept {
  return state_.guesses.range();
}

FreeAnswer Process::free(driver::Address address) noexcept {
  const cache::Lookup taken = state_.registry.take(address);
  if (taken.found == cache::Found::unknown) return FreeAnswer::not_ours;
  if (taken.found == cache::Found::interior) return FreeAnswer::interior;
  // During exit the driver is not called any more; what it holds goes with the process.
  if (g_passive.load(std::memory_order_relaxed)) return FreeAnswer::freed;
  state_.forget(taken.buffer);
  return state_.end(taken.buffer) == cache::Result::lost ? FreeAnswer::lost : FreeAnswer::freed;
}

std::optional<Elastic> Process::find(driver::Address address) noexcept {
  if (state_.registry.empty()) return std::nullopt;
  const cache::Lookup found = state_.registry.find(address);
  if (found.found == cache::Found::unknown) return std::nullopt;
  const cache::Buffer& buffer = *found.buffer;
  return Elastic{buffer.base(),       buffer.requested(), buffer.device(),
                 buffer.context(),    buffer.id(),        buffer.use() == cache::Use::whole,
                 buffer.sync_memops()};
}

bool Process::set_sync_memops(driver::Address address, bool on) noexcept {
  const cache::Lookup found = state_.registry.find(address);
  if (!found.buffer) return false;
  // Counted before it can be ended.
  if (on) kvcached_watched.sync_memops.fetch_add(1);
  const bool changed = found.buffer->set_sync_memops(on);
  if (changed != on) kvcached_watched.sync_memops.fetch_sub(1);
  return changed;
}

void Process::context_closing(driver::ContextId context) noexcept {
  driver::context_closing(context);
}

void Process::context_closed(driver::ContextId context, bool gone) noexcept {
  driver::context_closed(context, gone);
  if (!gone) return;
  cache::BufferStack taken = state_.registry.take_all(context);
  while (const std::shared_ptr<cache::Buffer> buffer = taken.pop()) {
    state_.forget(buffer);
    if (buffer->abandon() == cache::Result::not_now) state_.registry.bury(buffer);
  }
}

void Process::took_plain(driver::DeviceId device, Bytes size) noexcept {
  const Device* const d = state_.device(device);
  const bool member = d != nullptr && d->member.load(std::memory_order_acquire) != nullptr;
  if (member && size >= kMuchPlain) state_.agent.wake();
}

bool Process::make_room(driver::DeviceId device, Bytes size) noexcept {
  driver::MemoryInfo before;
  if (state_.driver.memory_info(device, before) != driver::Status::ok) return false;
  try {
    for (const auto& worker : state_.registry.workers())
      if (auto* cache = dynamic_cast<cache::Cache*>(worker.get())) cache->trim();
  } catch (...) {
    return false;
  }
  state_.agent.wake();
  const Instant deadline = steady_clock().now() + kRoomPatience;
  driver::MemoryInfo now = before;
  while (now.free < size && steady_clock().now() < deadline) {
    std::this_thread::sleep_for(milliseconds(1));
    if (state_.driver.memory_info(device, now) != driver::Status::ok) return false;
  }
  if (now.free >= size) return true;
  // Whoever shares the GPU is a tenant of its pool, whether it has elastic memory yet or not.
  member::Member* const m = state_.join(device);
  return (m != nullptr &&
          member::wait_for_others(*m, state_.driver, device, size,
                                  steady_clock().now() + kOthersPatience, steady_clock())) ||
         now.free > before.free;
}

// ---- For the public interface.

cache::Registry& Process::registry() noexcept { return state_.registry; }
cache::Handles& Process::handles() noexcept { return state_.handles; }
member::Agent& Process::agent() noexcept { return state_.agent; }
const Settings& Process::settings() const noexcept { return state_.settings; }
const Clock& Process::clock() const noexcept { return steady_clock(); }

}  // namespace kvcached
