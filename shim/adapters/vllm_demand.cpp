#include "shim/adapters/vllm_demand.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "shim/adapters/python_types.hpp"

namespace kvcached::adapters {
namespace {

constexpr ssize_t kHorizon = 32;    // steps of decoding to prepare for
constexpr ssize_t kAheadSteps = 2;  // steps of prefill to prepare for
constexpr ssize_t kFew = 8;  // requests of a line that are looked at for what others will need
constexpr ssize_t kUnknown = PTRDIFF_MAX;

PyObject* running_name = nullptr;     // of a scheduler: the list of its running requests
PyObject* most_name = nullptr;        // and how many there may be
PyObject* heap_name = nullptr;        // of a line by priority: what it keeps them in
PyObject* in_prefill_name = nullptr;  // of a request
PyObject* tokens_name = nullptr;
PyObject* list_name = nullptr;  // of all its tokens

// What is known of the type that was met last: its instances are read without Python code of their
// own, which takes microseconds where the processor's caches hold something else.
struct TypeCache {
  Owned type;
  bool simple = false;
  bool decided = false;  // by an instance that tells
};

// Of the KV cache.
struct Group {
  ssize_t size = 0;    // tokens of a block
  ssize_t most = 0;    // blocks of one request, however long
  ssize_t budget = 0;  // blocks for the tokens of a step

  ssize_t blocks(ssize_t tokens) const noexcept { return tokens > 0 ? (tokens - 1) / size + 1 : 0; }
};

struct Core {
  std::vector<Owned> lines;  // names of the scheduler's lines
  std::vector<Group> groups;
  ssize_t a_step = 0;     // blocks of a running request in the next step
  ssize_t a_horizon = 0;  // and in those to come
  ssize_t budget = 0;     // what prefill may take in a step
  ssize_t watermark = 0;
  ssize_t running = 0;                 // requests at the last look when nobody could come in
  Owned settled;                       // it and all before it were not in prefill at the last look
  std::vector<const PyObject*> first;  // who was to come in first then: to be compared, no more
  TypeCache line;     // simple: counts and lists as the deque that it is. None that has a heap
  TypeCache request;  // simple: its number of tokens is its list's length
  Owned deque;        // the type
  ssize_t (*deque_length)(PyObject*) = nullptr;
  PyObject* (*deque_iterator)(PyObject*) = nullptr;

  ssize_t blocks(ssize_t tokens) const noexcept {
    ssize_t blocks = 0;
    for (const Group& group : groups) blocks += std::min(group.blocks(tokens), group.most);
    return blocks;
  }

  // What prefill of so many requests may take in a step.
  ssize_t prefill(ssize_t requests) const noexcept {
    ssize_t blocks = 0;
    for (const Group& group : groups) {
      blocks +=
          group.most < group.budget ? std::min(group.most * requests, group.budget) : group.budget;
    }
    return blocks;
  }
};

struct Body {
  Core* core;
};

template <PyObject* (*kFunction)(Core&, PyObject* argument)>
PyObject* method(PyObject* self, PyObject* argument) noexcept {
  Core* const core = body<Body>(self).core;
  if (core == nullptr) return wrong("begin() was not called");
  try {
    return kFunction(*core, argument);
  } catch (const std::bad_alloc&) {
    return python.PyErr_NoMemory();
  }
}

// Of an attribute. False with an error set.
bool number_of(PyObject* object, PyObject* name, ssize_t& out) noexcept {
  const Owned value(python.PyObject_GetAttr(object, name));
  return value && number(value.get(), out);
}

// Below 0 with an error set.
ssize_t length_of_line(const Core& core, PyObject* line) noexcept {
  const Owned type(python.PyObject_Type(line));
  const bool simple = core.line.simple && type.get() == core.line.type.get();
  return simple ? core.deque_length(line) : python.PyObject_Size(line);
}

// As PyObject_GetAttr, but null without an error where there is no such attribute.
bool attribute_of(PyObject* object, PyObject* name, Owned& out) noexcept {
  out.reset(python.PyObject_GetAttr(object, name));
  if (out) return true;
  if (python.PyErr_ExceptionMatches(attribute_error) == 0) return false;
  python.PyErr_Clear();
  return true;
}

// How many tokens a request has. False with an error set.
bool tokens_of(Core& core, PyObject* request, ssize_t& out) noexcept {
  TypeCache& cache = core.request;
  Owned type(python.PyObject_Type(request));
  const bool known = type.get() == cache.type.get();
  if (known && !cache.simple) return number_of(request, tokens_name, out);
  Owned list;
  if (!attribute_of(request, list_name, list)) return false;
  const ssize_t length = list ? python.PyObject_Size(list.get()) : -1;
  if (known && length >= 0) {
    out = length;
    return true;
  }
  python.PyErr_Clear();  // of a list that cannot be counted
  if (!number_of(request, tokens_name, out)) return false;
  cache.simple = !known && length == out;
  if (!known) cache.type.reset(type.release());
  return true;
}

// Whether one of these is in prefill. New ones come last, and who comes back, too. False with an
// error set.
bool look_for_prefill(Core& core, PyObject* running, ssize_t count, bool& found) noexcept {
  found = false;
  Owned last;
  for (ssize_t i = count - 1; i >= 0; --i) {
    Owned request(python.PySequence_GetItem(running, i));
    if (!request) return false;
    if (request.get() == core.settled.get()) break;
    const Owned in_prefill(python.PyObject_GetAttr(request.get(), in_prefill_name));
    const int is = in_prefill ? python.PyObject_IsTrue(in_prefill.get()) : -1;
    if (is < 0) return false;
    if (is != 0) {
      core.settled.reset(nullptr);  // it may leave and come back before this is looked at again
      found = true;
      return true;
    }
    if (!last) last.reset(request.release());
  }
  if (count == 0) core.settled.reset(nullptr);
  if (last) core.settled.reset(last.release());
  return true;
}

// Those who wait, and what the first ones need.
struct Waiting {
  ssize_t count = 0;
  ssize_t blocks = 0;
  std::vector<const PyObject*> first;
};

// Whether a line, of so many requests, counts and lists them as the deque that it is. False with an
// error set, or not.
bool is_deque(const Core& core, PyObject* line, PyObject* type, ssize_t length) noexcept {
  if (core.deque_length == nullptr || core.deque_iterator == nullptr ||
      python.PyType_IsSubtype(type, core.deque.get()) == 0 || core.deque_length(line) != length)
    return false;
  const Owned own(python.PyObject_GetIter(line));
  const Owned plain(own ? core.deque_iterator(line) : nullptr);
  for (ssize_t i = 0; i < std::min(length, kFew); ++i) {
    const Owned one(plain ? python.PyIter_Next(own.get()) : nullptr);
    const Owned other(one ? python.PyIter_Next(plain.get()) : nullptr);
    if (!other || one.get() != other.get()) return false;
  }
  return true;
}

// Where the requests of a line that is not empty come from; null with an error set.
Owned requests_of(Core& core, PyObject* line, ssize_t length) noexcept {
  TypeCache& cache = core.line;
  Owned type(python.PyObject_Type(line));
  const bool known = type.get() == cache.type.get();
  if (known && cache.simple) return Owned(core.deque_iterator(line));
  if (!known) {
    Owned heap;
    if (!attribute_of(line, heap_name, heap)) return Owned();
    if (heap) return Owned(python.PyObject_GetIter(heap.get()));
  }
  if (!known || (!cache.decided && length > 1)) {
    const bool simple = length > 1 && is_deque(core, line, type.get(), length);
    if (python.PyErr_Occurred() != nullptr) return Owned();
    cache.simple = simple;
    cache.decided = length > 1;  // the order of one tells nothing
    if (!known) cache.type.reset(type.release());
  }
  return Owned(python.PyObject_GetIter(line));
}

// False with an error set.
bool look_at_line(Core& core, PyObject* line, Waiting& waiting) {
  const ssize_t length = length_of_line(core, line);
  if (length <= 0) return length == 0;
  waiting.count += length;
  const Owned requests = requests_of(core, line, length);
  if (!requests) return false;
  for (ssize_t i = 0; i < kFew; ++i) {
    const Owned request(python.PyIter_Next(requests.get()));
    if (!request) break;
    ssize_t tokens = 0;
    if (!tokens_of(core, request.get(), tokens)) return false;
    waiting.blocks += core.a_step + core.blocks(tokens);
    waiting.first.push_back(request.get());
  }
  return python.PyErr_Occurred() == nullptr;
}

bool look_at_lines(Core& core, PyObject* scheduler, Waiting& waiting) {
  return std::all_of(core.lines.begin(), core.lines.end(), [&](const Owned& name) {
    const Owned line(python.PyObject_GetAttr(scheduler, name.get()));
    return line && look_at_line(core, line.get(), waiting);
  });
}

// False with an error set.
bool look_at(Core& core, PyObject* scheduler, Look& out) {
  const Owned running(python.PyObject_GetAttr(scheduler, running_name));
  const ssize_t count = running ? python.PyObject_Size(running.get()) : -1;
  bool in_prefill = false;
  Waiting waiting;
  ssize_t most = 0;
  if (count < 0 || !look_for_prefill(core, running.get(), count, in_prefill) ||
      !look_at_lines(core, scheduler, waiting) ||
      (waiting.count != 0 && !number_of(scheduler, most_name, most)))
    return false;
  const ssize_t prefill = in_prefill ? core.prefill(count) : 0;
  const ssize_t now = count * core.a_step, later = count * core.a_horizon, room = most - count;
  if (waiting.count == 0 || room <= 0) {
    core.running = count;
    const bool alike = waiting.count == 0 && !in_prefill;
    out = {now + prefill, later, now + prefill, alike ? kHorizon : 0};
    return true;
  }
  // Others may need more than these; and whoever did not get in although there seemed to be room
  // needs more than is known here.
  const auto looked_at = static_cast<ssize_t>(waiting.first.size());
  if (looked_at == 0) return wrong("a line that is not empty, and nobody in it") != nullptr;
  const bool known =
      waiting.count == looked_at &&
      std::find_first_of(waiting.first.begin(), waiting.first.end(), core.first.begin(),
                         core.first.end()) == waiting.first.end();
  const ssize_t surely = known ? now + prefill + waiting.blocks + core.watermark : kUnknown;
  core.first = std::move(waiting.first);
  const ssize_t coming = std::min(waiting.count, room);
  const ssize_t new_ones =
      coming > looked_at ? waiting.blocks * coming / looked_at : waiting.blocks;
  const ssize_t step = std::min(core.budget, new_ones);
  out = {now + std::max(prefill, step),
         later + std::min(new_ones - step, kAheadSteps * core.budget), surely, 0};
  return true;
}

PyObject* look(Core& core, PyObject* scheduler) {
  Look seen;
  return look_at(core, scheduler, seen) ? to_python(seen) : nullptr;
}

// Below 0 with an error set.
int is_same(const Core& core, PyObject* scheduler) noexcept {
  for (const Owned& name : core.lines) {
    const Owned line(python.PyObject_GetAttr(scheduler, name.get()));
    const ssize_t waiting = line ? length_of_line(core, line.get()) : -1;
    if (waiting != 0) return waiting < 0 ? -1 : 0;
  }
  const Owned running(python.PyObject_GetAttr(scheduler, running_name));
  const ssize_t count = running ? python.PyObject_Size(running.get()) : -1;
  return count < 0 ? -1 : static_cast<int>(count <= core.running);
}

PyObject* same(Core& core, PyObject* scheduler) {
  const int is = is_same(core, scheduler);
  return is < 0 ? nullptr : python.PyBool_FromLong(is);
}

PyObject* forget(Core& core, PyObject*) {
  core.settled.reset(nullptr);
  core.first.clear();
  return also(none);
}

PyObject* blocks(Core& core, PyObject* argument) {
  ssize_t tokens = 0;
  return number(argument, tokens) ? python.PyLong_FromSsize_t(core.blocks(tokens)) : nullptr;
}

PyObject* in_a_step(Core& core, PyObject*) { return python.PyLong_FromSsize_t(core.budget); }

// begin(names of the lines, of each group of the KV cache (tokens of a block, most blocks of a
//       request), tokens of a request in a step, tokens that are looked ahead, blocks that are
//       copied in a step, tokens of all requests in a step, watermark, the type deque)
PyObject* begin(PyObject* self, PyObject* arguments) noexcept {
  PyObject *lines = nullptr, *groups = nullptr, *deque = nullptr;
  ssize_t tokens = 0, ahead = 0, copied = 0, budget = 0, watermark = 0;
  if (python.PyArg_ParseTuple(arguments, "OOnnnnnO", &lines, &groups, &tokens, &ahead, &copied,
                              &budget, &watermark, &deque) == 0)
    return nullptr;
  try {
    auto core = std::make_unique<Core>();
    const auto add_line = [&](PyObject* name) {
      Owned held(also(name));
      core->lines.push_back(std::move(held));
      return true;
    };
    const auto add_group = [&](PyObject* pair) {
      Group group;
      if (python.PyArg_ParseTuple(pair, "nn", &group.size, &group.most) == 0) return false;
      if (group.size <= 0 || group.most <= 0) return wrong("a group without blocks") != nullptr;
      group.budget = group.blocks(budget);
      core->budget += group.budget;
      core->groups.push_back(group);
      return true;
    };
    if (!for_each(lines, add_line) || !for_each(groups, add_group)) return nullptr;
    core->a_step = core->blocks(tokens + ahead) + copied;
    core->a_horizon = core->blocks(kHorizon * tokens);
    core->watermark = watermark;
    core->deque.reset(also(deque));
    core->deque_length =
        reinterpret_cast<ssize_t (*)(PyObject*)>(python.PyType_GetSlot(deque, kSlotLength));
    core->deque_iterator =
        reinterpret_cast<PyObject* (*)(PyObject*)>(python.PyType_GetSlot(deque, kSlotIter));
    python.PyErr_Clear();  // before Python 3.10 it is not told of such a type
    return adopt<Body>(self, std::move(core));
  } catch (const std::bad_alloc&) {
    return python.PyErr_NoMemory();
  }
}

PyMethod methods[] = {{"begin", &begin, kArgumentTuple, nullptr},
                      {"look", &method<look>, kOneArgument, nullptr},
                      {"same", &method<same>, kOneArgument, nullptr},
                      {"forget", &method<forget>, kNoArguments, nullptr},
                      {"blocks", &method<blocks>, kOneArgument, nullptr},
                      {"in_a_step", &method<in_a_step>, kNoArguments, nullptr},
                      {nullptr, nullptr, 0, nullptr}};

PyObject* make() noexcept {
  if (!ready()) return nullptr;
  const auto intern = [](PyObject*& name, const char* text) {
    name = python.PyUnicode_InternFromString(text);
    return name != nullptr;
  };
  if (!intern(running_name, "running") || !intern(most_name, "max_num_running_reqs") ||
      !intern(heap_name, "_heap") || !intern(in_prefill_name, "is_prefill_chunk") ||
      !intern(tokens_name, "num_tokens") || !intern(list_name, "_all_token_ids"))
    return nullptr;
  static PyMember members[] = {{nullptr, 0, 0, 0, nullptr}};
  return make_type("_kvcached.Demand", sizeof(Body), &dealloc<Body>, methods, members);
}

}  // namespace

PyObject* vllm_demand_type() noexcept { return once<&make>(); }

PyObject* to_python(const Look& look) noexcept {
  return python.Py_BuildValue("(nnnn)", look.now, look.later, look.surely, look.steps);
}

bool look_ahead(PyObject* instance, PyObject* scheduler, Look& out) noexcept {
  Core* const core = body<Body>(instance).core;
  if (core == nullptr) return wrong("begin() was not called") != nullptr;
  try {
    return look_at(*core, scheduler, out);
  } catch (const std::bad_alloc&) {
    return python.PyErr_NoMemory() != nullptr;
  }
}

int is_same(PyObject* instance, PyObject* scheduler) noexcept {
  const Core* const core = body<Body>(instance).core;
  if (core != nullptr) return is_same(*core, scheduler);
  wrong("begin() was not called");
  return -1;
}

}  // namespace kvcached::adapters
