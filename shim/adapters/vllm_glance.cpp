#include "shim/adapters/vllm_glance.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <utility>

#include "shim/adapters/python_free_blocks.hpp"
#include "shim/adapters/python_types.hpp"
#include "shim/adapters/vllm_demand.hpp"

namespace kvcached::adapters {
namespace {

constexpr ssize_t kSettleEvery = 8;  // steps of those that are like the one before

PyObject* cache_name = nullptr;     // "cache"
PyObject* pressure_name = nullptr;  // "pressure"
PyObject* running_name = nullptr;   // of a scheduler

struct Core {
  PyObject* queue;                             // FreeBlocks, which the instance's dictionary keeps
  Owned demand;                                // Demand
  const std::atomic<std::uint64_t>* pressure;  // null: the cache is asked in Python
  std::optional<Look> seen;                    // and not told yet

  Core(PyObject* free_blocks, PyObject* needs, const void* word)
      : queue(free_blocks),
        demand(also(needs)),
        pressure(static_cast<const std::atomic<std::uint64_t>*>(word)) {}
};

// An instance's memory behind its head. All but the core is Python's to read and to write; what
// says yes or no is 1 or 0.
struct Words {
  Core* core;           // its own, made by watch()
  ssize_t calm;         // for so many steps like the last nothing has to be looked at
  ssize_t keep;         // loose blocks not taken back after a step: what steps lately may take
  ssize_t expected;     // last told to the library
  ssize_t arrived;      // blocks that requests on their way will need
  ssize_t withheld;     // blocks without memory
  ssize_t keep_cached;  // blocks that only the prefix cache knows, below which it is left alone
  ssize_t sure;         // the step cannot run out of blocks
  ssize_t idle;         // nothing was asked for lately
  ssize_t blind;        // what the scheduler will need cannot be told
  ssize_t pinning;      // everything is to be backed
  double hand_back_at;  // seconds of the monotonic clock; nothing goes back before
};

// What an error says is found out in Python, where it is told: here it means no.
PyObject* no() noexcept {
  python.PyErr_Clear();
  return python.PyBool_FromLong(0);
}

PyObject* yes() noexcept { return python.PyBool_FromLong(1); }

// Whether it would make no difference to tell the library that so many blocks are expected.
bool is_told(const Words& w, ssize_t expected) noexcept {
  if (expected == w.expected) return true;
  return expected != 0 && w.expected != 0 && std::abs(expected - w.expected) * 4 <= w.expected;
}

// is_told(blocks), for who tells it.
PyObject* is_told(PyObject* self, PyObject* blocks) noexcept {
  ssize_t expected = 0;
  if (!number(blocks, expected)) return nullptr;
  return python.PyBool_FromLong(is_told(body<Words>(self), expected) ? 1 : 0);
}

// glance(scheduler): whether the coming step finds what it needs, and the library is preparing what
// can be foreseen. Else what was seen of them is kept for seen().
PyObject* glance(PyObject* self, PyObject* scheduler) noexcept {
  Words& w = body<Words>(self);
  if (w.core == nullptr || w.pinning != 0 || w.blind != 0) return no();
  Core& core = *w.core;
  if (w.calm > 0) {
    const int same = is_same(core.demand.get(), scheduler);
    if (same < 0) return no();
    if (same > 0) {
      --w.calm;
      return yes();
    }
  }
  Look seen;
  if (!look_ahead(core.demand.get(), scheduler, seen)) return no();
  const FreeCounts free = free_counts(core.queue);
  const ssize_t to_be_had = std::max(free.loose, free.free - w.keep_cached);
  const bool sure = w.withheld == 0 || free.free >= seen.surely;
  const ssize_t lacks = std::min(seen.now + seen.later - to_be_had, w.withheld);
  if ((to_be_had < seen.now && w.withheld != 0) || !is_told(w, std::max(lacks, ssize_t{0})) ||
      sure != (w.sure != 0)) {
    core.seen = seen;
    return no();
  }
  w.keep = std::max(seen.now, w.keep - (w.keep >> 6) - 1);
  w.calm = to_be_had < seen.now + seen.later ? 0 : seen.steps;
  w.arrived = w.idle = 0;
  return yes();
}

// seen(): what the last glance() saw and nobody has asked for, as Demand.look() answers; else None.
PyObject* seen(PyObject* self, PyObject*) noexcept {
  Core* const core = body<Words>(self).core;
  if (core == nullptr || !core->seen) return also(none);
  return to_python(*std::exchange(core->seen, std::nullopt));
}

// False with an error set.
bool pressure_of(PyObject* self, const Core& core, bool& out) noexcept {
  if (core.pressure != nullptr) {
    out = core.pressure->load(std::memory_order_relaxed) != 0;
    return true;
  }
  const Owned cache(python.PyObject_GetAttr(self, cache_name));
  const Owned ask(cache ? python.PyObject_GetAttr(cache.get(), pressure_name) : nullptr);
  const Owned blocks(ask ? python.PyObject_CallFunctionObjArgs(ask.get(), nullptr) : nullptr);
  const int is = blocks ? python.PyObject_IsTrue(blocks.get()) : -1;
  out = is > 0;
  return is >= 0;
}

// rests(scheduler): whether settle() may be left out after this step: nothing is to be handed back
// yet, or the step was like the one before, and where steps are short, every microsecond is felt.
// Never where no request runs any more.
PyObject* rests(PyObject* self, PyObject* scheduler) noexcept {
  const Words& w = body<Words>(self);
  if (w.pinning != 0) return yes();
  if (w.core == nullptr) return no();
  const Owned running(python.PyObject_GetAttr(scheduler, running_name));
  if (!running || python.PyObject_IsTrue(running.get()) <= 0) return no();
  bool pressure = false;
  if (!pressure_of(self, *w.core, pressure)) return no();
  if (pressure || free_counts(w.core->queue).condemned != 0) return no();
  if (w.calm % kSettleEvery != 0) return yes();
  const auto now =
      std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch());
  return python.PyBool_FromLong(now.count() < w.hand_back_at ? 1 : 0);
}

bool is_a(PyObject* object, PyObject* (*type)() noexcept) noexcept {
  const Owned known(type());
  return known && python.PyObject_IsInstance(object, known.get()) == 1;
}

// watch(queue, needs, word): FreeBlocks, which the caller keeps as long as this; Demand; the
// address at which the library tells pressure, as long as the cache lives, or 0: cache.pressure()
// is asked.
PyObject* watch(PyObject* self, PyObject* arguments) noexcept {
  PyObject *queue = nullptr, *needs = nullptr;
  ssize_t word = 0;
  if (python.PyArg_ParseTuple(arguments, "OOn", &queue, &needs, &word) == 0) return nullptr;
  if (!is_a(queue, &free_blocks_type) || !is_a(needs, &vllm_demand_type)) {
    if (python.PyErr_Occurred() == nullptr) wrong("neither a queue nor needs that are known here");
    return nullptr;
  }
  try {
    return adopt<Words>(self,
                        std::make_unique<Core>(queue, needs, reinterpret_cast<const void*>(word)));
  } catch (const std::bad_alloc&) {
    return python.PyErr_NoMemory();
  }
}

PyMethod methods[] = {
    {"watch", &watch, kArgumentTuple, nullptr}, {"glance", &glance, kOneArgument, nullptr},
    {"seen", &seen, kNoArguments, nullptr},     {"is_told", &is_told, kOneArgument, nullptr},
    {"rests", &rests, kOneArgument, nullptr},   {nullptr, nullptr, 0, nullptr}};

PyObject* make() noexcept {
  if (!ready()) return nullptr;
  cache_name = python.PyUnicode_InternFromString("cache");
  pressure_name = python.PyUnicode_InternFromString("pressure");
  running_name = python.PyUnicode_InternFromString("running");
  if (cache_name == nullptr || pressure_name == nullptr || running_name == nullptr) return nullptr;
  static PyMember members[] = {member("calm", offsetof(Words, calm), 0),
                               member("keep", offsetof(Words, keep), 0),
                               member("expected", offsetof(Words, expected), 0),
                               member("arrived", offsetof(Words, arrived), 0),
                               member("withheld", offsetof(Words, withheld), 0),
                               member("keep_cached", offsetof(Words, keep_cached), 0),
                               member("sure", offsetof(Words, sure), 0),
                               member("idle", offsetof(Words, idle), 0),
                               member("blind", offsetof(Words, blind), 0),
                               member("pinning", offsetof(Words, pinning), 0),
                               member("hand_back_at", offsetof(Words, hand_back_at), 0, kDouble),
                               {nullptr, 0, 0, 0, nullptr}};
  return make_type("_kvcached.Glance", sizeof(Words), &dealloc<Words>, methods, members);
}

}  // namespace

PyObject* vllm_glance_type() noexcept { return once<&make>(); }

}  // namespace kvcached::adapters
