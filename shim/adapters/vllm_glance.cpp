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
  const std::atomic<std::uint64_t>* pressure;  // null: the cache is asked in Python
  Owned demand;                                // Demand, once watch() was called
  std::optional<Look> seen;                    // and not told yet

  Core(PyObject* free_blocks, const void* word)
      : queue(free_blocks), pressure(static_cast<const std::atomic<std::uint64_t>*>(word)) {}
};

// An instance's memory behind its head. All but the core is Python's to read and to write; what
// says yes or no is 1 or 0.
struct Words {
  Core* core;           // its own, made by begin()
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

// Blocks without growing: beyond its limit the prefix cache gives up some before any are added.
ssize_t to_be_had(const Words& w, const FreeCounts& free) noexcept {
  return std::max(free.loose, free.free - w.keep_cached);
}

// What is there for a step and those to come.
struct Outlook {
  bool enough = false;  // for the step, but for what cannot be added anyway
  bool for_all = false;
  bool sure = false;  // the step cannot run out of blocks
  ssize_t lacks = 0;  // for all of them, as far as it can be added
};

Outlook outlook(const Words& w, const Look& look) noexcept {
  const FreeCounts free = free_counts(w.core->queue);
  const ssize_t there = to_be_had(w, free), all = look.now + look.later;
  return {there >= look.now || w.withheld == 0, there >= all,
          w.withheld == 0 || free.free >= look.surely,
          std::clamp(all - there, ssize_t{0}, std::max(w.withheld, ssize_t{0}))};
}

void prepare_for(Words& w, const Look& look, const Outlook& there) noexcept {
  w.keep = std::max(look.now, w.keep - (w.keep >> 6) - 1);
  w.calm = there.for_all ? look.steps : 0;
  w.sure = there.sure ? 1 : 0;
  w.arrived = w.idle = 0;
}

// glance(scheduler): whether the coming step finds what it needs, and the library is preparing what
// can be foreseen. Else what was seen of them is kept for seen().
PyObject* glance(PyObject* self, PyObject* scheduler) noexcept {
  Words& w = body<Words>(self);
  if (w.core == nullptr || !w.core->demand || w.pinning != 0 || w.blind != 0) return no();
  Core& core = *w.core;
  if (w.calm > 0) {
    const int same = is_same(core.demand.get(), scheduler);
    if (same < 0) return no();
    if (same > 0) {
      --w.calm;
      return yes();
    }
  }
  Look look;
  if (!look_ahead(core.demand.get(), scheduler, look)) return no();
  const Outlook there = outlook(w, look);
  if (!there.enough || !is_told(w, there.lacks) || there.sure != (w.sure != 0)) {
    core.seen = look;
    return no();
  }
  prepare_for(w, look, there);
  return yes();
}

// foresee(now, later, surely, steps), of what was seen: notes what is there for it, and answers
// what lacks for all of it.
PyObject* foresee(PyObject* self, PyObject* arguments) noexcept {
  Words& w = body<Words>(self);
  Look look;
  if (w.core == nullptr) return wrong("begin() was not called");
  if (python.PyArg_ParseTuple(arguments, "nnnn", &look.now, &look.later, &look.surely,
                              &look.steps) == 0)
    return nullptr;
  const Outlook there = outlook(w, look);
  prepare_for(w, look, there);
  return python.PyLong_FromSsize_t(there.lacks);
}

// to_be_had(): so many blocks without growing.
PyObject* to_be_had(PyObject* self, PyObject*) noexcept {
  const Words& w = body<Words>(self);
  if (w.core == nullptr) return wrong("begin() was not called");
  return python.PyLong_FromSsize_t(to_be_had(w, free_counts(w.core->queue)));
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
// Never where no request runs any more, or where everything is to be backed and is not.
PyObject* rests(PyObject* self, PyObject* scheduler) noexcept {
  const Words& w = body<Words>(self);
  if (w.pinning != 0) return python.PyBool_FromLong(w.withheld == 0 ? 1 : 0);
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

// begin(queue, word): FreeBlocks, which the caller keeps as long as this; the address at which the
// library tells pressure, as long as the cache lives, or 0: cache.pressure() is asked.
PyObject* begin(PyObject* self, PyObject* arguments) noexcept {
  PyObject* queue = nullptr;
  ssize_t word = 0;
  if (python.PyArg_ParseTuple(arguments, "On", &queue, &word) == 0) return nullptr;
  if (!is_a(queue, &free_blocks_type)) {
    return python.PyErr_Occurred() != nullptr ? nullptr : wrong("this is no queue known here");
  }
  try {
    return adopt<Words>(self, std::make_unique<Core>(queue, reinterpret_cast<const void*>(word)));
  } catch (const std::bad_alloc&) {
    return python.PyErr_NoMemory();
  }
}

// watch(needs): Demand, which tells what a scheduler will need.
PyObject* watch(PyObject* self, PyObject* needs) noexcept {
  Core* const core = body<Words>(self).core;
  if (core == nullptr) return wrong("begin() was not called");
  if (!is_a(needs, &vllm_demand_type)) {
    return python.PyErr_Occurred() != nullptr ? nullptr : wrong("these are no needs known here");
  }
  core->demand.reset(also(needs));
  return also(none);
}

PyMethod methods[] = {{"begin", &begin, kArgumentTuple, nullptr},
                      {"watch", &watch, kOneArgument, nullptr},
                      {"glance", &glance, kOneArgument, nullptr},
                      {"seen", &seen, kNoArguments, nullptr},
                      {"foresee", &foresee, kArgumentTuple, nullptr},
                      {"to_be_had", &to_be_had, kNoArguments, nullptr},
                      {"is_told", &is_told, kOneArgument, nullptr},
                      {"rests", &rests, kOneArgument, nullptr},
                      {nullptr, nullptr, 0, nullptr}};

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
