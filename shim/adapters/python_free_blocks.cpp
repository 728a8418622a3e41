#include "shim/adapters/python_free_blocks.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "shim/adapters/free_blocks.hpp"
#include "shim/adapters/python_types.hpp"

namespace kvcached::adapters {
namespace {

using Block = FreeBlocks::Block;
using End = FreeBlocks::End;

PyObject* id_name = nullptr;        // "block_id"
PyObject* callback_name = nullptr;  // "before_evicting"

struct Freed {
  Block block;
  bool cached;
};

struct Core {
  FreeBlocks blocks;
  std::vector<PyObject*> objects;  // the engine's, by number; each a reference
  PyObject* hash_name;             // a reference
  Slot id_slot, hash_slot;         // of a block
  ssize_t ask_below;
  ssize_t refused = 0;
  std::vector<Block> taken;  // kept, so that a call allocates nothing
  std::vector<Freed> freed;

  explicit Core(std::span<const Block> sizes, PyObject* hash, ssize_t ask)
      : blocks(sizes), hash_name(also(hash)), ask_below(ask) {}
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;
  ~Core() {
    for (PyObject* object : objects) python.Py_DecRef(object);
    python.Py_DecRef(hash_name);
  }
};

// An instance's memory behind its head.
struct Words {
  Core* core;             // its own, made by begin()
  ssize_t size, stripes;  // of all blocks; they stay
  ssize_t free, loose, aside, condemned, refused;
};

void publish(PyObject* self) noexcept {
  Words& w = body<Words>(self);
  const FreeBlocks& blocks = w.core->blocks;
  w.free = static_cast<ssize_t>(blocks.free());
  w.loose = static_cast<ssize_t>(blocks.loose());
  w.aside = static_cast<ssize_t>(blocks.aside());
  w.condemned = static_cast<ssize_t>(blocks.condemned());
  w.refused = w.core->refused;
}

// A method: sees to what all have in common.
template <PyObject* (*kFunction)(Core&, PyObject* self, PyObject* argument)>
PyObject* method(PyObject* self, PyObject* argument) noexcept {
  Core* const core = body<Words>(self).core;
  if (core == nullptr) return wrong("begin() was not called");
  PyObject* result = nullptr;
  try {
    result = kFunction(*core, self, argument);
  } catch (const std::bad_alloc&) {
    python.PyErr_NoMemory();
  }
  publish(self);
  return result;
}

// ---- From and to Python ----

// False, with an error set, when it is no number below `end`.
bool number_of(PyObject* object, std::size_t end, std::uint32_t& out) noexcept {
  ssize_t value = 0;
  if (!number(object, value)) return false;
  if (value < 0 || static_cast<std::size_t>(value) >= end) {
    wrong("there is no such block or stripe");
    return false;
  }
  out = static_cast<std::uint32_t>(value);
  return true;
}

bool block_of(const Core& core, PyObject* object, Block& out) noexcept {
  PyObject* const known = core.id_slot.of(object);
  if (known != nullptr) return number_of(known, core.blocks.blocks(), out);
  const Owned id(python.PyObject_GetAttr(object, id_name));
  return id && number_of(id.get(), core.blocks.blocks(), out);
}

// False, with an error set, on failure.
bool is_cached(const Core& core, PyObject* object, bool& out) noexcept {
  PyObject* const known = core.hash_slot.of(object);
  if (known != nullptr) {
    out = known != none;
    return true;
  }
  const Owned hash(python.PyObject_GetAttr(object, core.hash_name));
  out = hash.get() != none;
  return static_cast<bool>(hash);
}

// A list with `make(item)` of each, which is a new reference.
template <typename Items, typename Make>
PyObject* list_of(const Items& items, Make make) noexcept {
  Owned list(python.PyList_New(static_cast<ssize_t>(items.size())));
  if (!list) return nullptr;
  ssize_t at = 0;
  for (const auto& item : items) {
    PyObject* const object = make(item);
    if (object == nullptr || python.PyList_SetItem(list.get(), at++, object) != 0) return nullptr;
  }
  return list.release();
}

PyObject* objects_of(const Core& core, const std::vector<Block>& blocks) noexcept {
  return list_of(blocks, [&](Block block) { return also(core.objects[block]); });
}

PyObject* numbers_of(const std::vector<std::uint32_t>& numbers) noexcept {
  return list_of(numbers, [](std::uint32_t n) { return python.PyLong_FromSsize_t(n); });
}

PyObject* ranges_of(const std::vector<FreeBlocks::Range>& ranges) noexcept {
  return list_of(ranges, [](const FreeBlocks::Range& range) {
    return python.Py_BuildValue("(II)", range.first, range.count);
  });
}

// ---- What an engine's queue of free blocks has ----

bool none_left() noexcept { return wrong("No free blocks available") != nullptr; }

// Before `count` are taken. False with an error set.
bool ask(const Core& core, PyObject* self, ssize_t count) noexcept {
  const FreeBlocks& blocks = core.blocks;
  const auto free = [&] { return static_cast<ssize_t>(blocks.free()); };
  const auto loose = [&] { return static_cast<ssize_t>(blocks.loose()); };
  if (count > loose() && (count > free() || free() - loose() <= core.ask_below)) {
    const Owned callback(python.PyObject_GetAttr(self, callback_name));
    const Owned wanted(python.PyLong_FromSsize_t(count));
    if (!callback || !wanted) return false;
    const Owned answer(python.PyObject_CallFunctionObjArgs(callback.get(), wanted.get(), nullptr));
    if (!answer) return false;
  }
  return (count >= 0 && count <= free()) || none_left();
}

PyObject* popleft(Core& core, PyObject* self, PyObject*) {
  Block block = 0;
  if (!ask(core, self, 1) || !core.blocks.take(1, &block)) return nullptr;
  return also(core.objects[block]);
}

PyObject* popleft_n(Core& core, PyObject* self, PyObject* argument) {
  ssize_t count = 0;
  if (!number(argument, count) || !ask(core, self, count)) return nullptr;
  // Before any is taken: to make it may run code, which may take some, too.
  Owned list(python.PyList_New(count));
  if (!list) return nullptr;
  core.taken.resize(static_cast<std::size_t>(count));
  if (!core.blocks.take(core.taken.size(), core.taken.data()) && !none_left()) return nullptr;
  for (ssize_t at = 0; const Block block : core.taken) {
    python.PyList_SetItem(list.get(), at++, also(core.objects[block]));
  }
  return list.release();
}

PyObject* remove(Core& core, PyObject*, PyObject* argument) {
  Block block = 0;
  if (!block_of(core, argument, block)) return nullptr;
  return core.blocks.remove(block) ? also(none) : wrong("this block is not free");
}

// What was freed twice stays as it is, and is counted.
void give(Core& core, const Freed& freed, End end) noexcept {
  core.refused += core.blocks.give(freed.block, freed.cached, end) ? 0 : 1;
}

// A block that is about to be given. False with an error set. Runs code where the block is read by
// name, which may give or take others: what was read before must not lie in the core meanwhile.
bool read(const Core& core, PyObject* object, Freed& out) noexcept {
  return block_of(core, object, out.block) && is_cached(core, object, out.cached);
}

// Lends the core's vector out, so that a call allocates nothing.
class Noted {
 public:
  explicit Noted(Core& core) noexcept : core_(core) { all.swap(core.freed); }
  ~Noted() {
    all.clear();
    all.swap(core_.freed);
  }
  Noted(const Noted&) = delete;
  Noted& operator=(const Noted&) = delete;

  std::vector<Freed> all;

 private:
  Core& core_;
};

// False with an error set.
bool note_all(const Core& core, PyObject* objects, std::vector<Freed>& out) {
  // The engine has just touched the blocks, but not their numbers, which lie anywhere: what takes
  // longest is fetched for all of them at once.
  const ssize_t count = is_exactly(objects, list_type) ? python.PyList_Size(objects) : 0;
  for (ssize_t i = 0; i < count; ++i) {
    __builtin_prefetch(core.id_slot.of(python.PyList_GetItem(objects, i)));
  }
  return for_each(objects, [&](PyObject* object) {
    Freed freed{};
    if (!read(core, object, freed)) return false;
    core.blocks.will_give(freed.block);
    out.push_back(freed);
    return true;
  });
}

PyObject* append(Core& core, PyObject*, PyObject* argument) {
  Freed freed{};
  if (!read(core, argument, freed)) return nullptr;
  give(core, freed, End::back);
  return also(none);
}

PyObject* append_n(Core& core, PyObject*, PyObject* argument) {
  Noted freed(core);
  if (!note_all(core, argument, freed.all)) return nullptr;
  for (const Freed& each : freed.all) give(core, each, End::back);
  return also(none);
}

PyObject* prepend_n(Core& core, PyObject*, PyObject* argument) {
  Noted freed(core);
  if (!note_all(core, argument, freed.all)) return nullptr;
  // The first one becomes the first; where loose ones go, there is no such order.
  const auto cached = std::stable_partition(freed.all.begin(), freed.all.end(),
                                            [](const Freed& each) { return !each.cached; });
  std::reverse(cached, freed.all.end());
  for (const Freed& each : freed.all) give(core, each, End::front);
  return also(none);
}

PyObject* get_all_free_blocks(Core& core, PyObject*, PyObject*) {
  return objects_of(core, core.blocks.all());
}

// ---- Stripes ----

template <typename Use>
PyObject* with_stripe(const Core& core, PyObject* argument, Use use) {
  FreeBlocks::Stripe stripe = 0;
  if (!number_of(argument, core.blocks.stripes(), stripe)) return nullptr;
  return use(stripe);
}

PyObject* add(Core& core, PyObject*, PyObject* arguments) {
  FreeBlocks::Range range{};
  if (python.PyArg_ParseTuple(arguments, "II", &range.first, &range.count) == 0) return nullptr;
  return core.blocks.add(range) ? also(none) : wrong("no such blocks, or some were added before");
}

PyObject* empty(Core& core, PyObject*, PyObject*) { return numbers_of(core.blocks.empty()); }

PyObject* cached_only(Core& core, PyObject*, PyObject*) {
  return numbers_of(core.blocks.cached_only());
}

PyObject* cached_only_blocks(Core& core, PyObject*, PyObject*) {
  return python.PyLong_FromSsize_t(static_cast<ssize_t>(core.blocks.cached_only_blocks()));
}

PyObject* withdraw(Core& core, PyObject*, PyObject* argument) {
  return with_stripe(core, argument, [&](FreeBlocks::Stripe stripe) {
    // Before it is done, so that nothing is lost where there is no memory.
    Owned ranges(ranges_of(core.blocks.ranges(stripe)));
    std::vector<FreeBlocks::Range> gone;
    if (!ranges) return static_cast<PyObject*>(nullptr);
    return core.blocks.withdraw(stripe, gone) ? ranges.release() : wrong("this stripe is in use");
  });
}

PyObject* condemn(Core& core, PyObject*, PyObject* arguments) {
  ssize_t blocks = 0, spare = 0, most = 0;
  if (python.PyArg_ParseTuple(arguments, "nnn", &blocks, &spare, &most) == 0) return nullptr;
  if (blocks > 0 && spare > 0 && most > 0) {
    core.blocks.condemn(static_cast<std::size_t>(blocks), static_cast<std::size_t>(spare),
                        static_cast<std::size_t>(most));
  }
  return also(none);
}

PyObject* pardon(Core& core, PyObject*, PyObject*) {
  for (const Block block : core.blocks.pardon()) {
    bool cached = false;
    // One that cannot be asked counts as unknown.
    if (!is_cached(core, core.objects[block], cached)) python.PyErr_Clear();
    core.blocks.give(block, cached, End::back);
  }
  return also(none);
}

PyObject* stripe_of(Core& core, PyObject*, PyObject* argument) {
  Block block = 0;
  if (!number_of(argument, core.blocks.blocks(), block)) return nullptr;
  return python.PyLong_FromSsize_t(core.blocks.stripe_of(block));
}

PyObject* is_condemned(Core& core, PyObject*, PyObject* argument) {
  return with_stripe(core, argument, [&](FreeBlocks::Stripe stripe) {
    return python.PyBool_FromLong(core.blocks.is_condemned(stripe) ? 1 : 0);
  });
}

PyObject* held(Core& core, PyObject*, PyObject* argument) {
  return with_stripe(core, argument, [&](FreeBlocks::Stripe stripe) {
    return python.PyLong_FromSsize_t(core.blocks.held(stripe));
  });
}

PyObject* ranges(Core& core, PyObject*, PyObject* argument) {
  return with_stripe(core, argument, [&](FreeBlocks::Stripe stripe) {
    return ranges_of(core.blocks.ranges(stripe));
  });
}

PyObject* stack(Core& core, PyObject*, PyObject* argument) {
  return with_stripe(core, argument, [&](FreeBlocks::Stripe stripe) {
    return objects_of(core, core.blocks.stack(stripe));
  });
}

PyObject* cached_in(Core& core, PyObject*, PyObject* arguments) {
  FreeBlocks::Stripe stripe = 0;
  ssize_t most = 0;
  if (python.PyArg_ParseTuple(arguments, "In", &stripe, &most) == 0) return nullptr;
  if (stripe >= core.blocks.stripes()) return wrong("there is no such stripe");
  return objects_of(
      core, core.blocks.cached_in(stripe, static_cast<std::size_t>(std::max<ssize_t>(most, 0))));
}

bool forget_one(Core& core, Block block) noexcept {
  bool cached = false;
  if (!is_cached(core, core.objects[block], cached)) return false;
  if (!cached) core.blocks.forget(block);
  return true;
}

PyObject* forget(Core& core, PyObject*, PyObject* argument) {
  const bool done = for_each(argument, [&](PyObject* number) {
    Block block = 0;
    return number_of(number, core.blocks.blocks(), block) && forget_one(core, block);
  });
  return done ? also(none) : nullptr;
}

PyObject* forget_all(Core& core, PyObject*, PyObject*) {
  for (const Block block : core.blocks.all()) {
    if (!forget_one(core, block)) return nullptr;
  }
  return also(none);
}

// ---- The type ----

PyObject* begin(PyObject* self, PyObject* arguments) noexcept {
  PyObject *blocks = nullptr, *sizes = nullptr, *hash = nullptr, *bare = nullptr;
  ssize_t ask_below = 0;
  if (python.PyArg_ParseTuple(arguments, "OOUnO", &blocks, &sizes, &hash, &ask_below, &bare) == 0)
    return nullptr;
  try {
    std::vector<Block> counts;
    const bool known = for_each(sizes, [&](PyObject* size) {
      return number_of(size, static_cast<Block>(-1), counts.emplace_back());
    });
    if (!known) return nullptr;
    auto core = std::make_unique<Core>(counts, hash, ask_below);
    if (bare != none) {
      core->id_slot.find(bare, id_name);
      core->hash_slot.find(bare, hash);
    }
    core->objects.reserve(core->blocks.blocks());
    if (!for_each(blocks, [&](PyObject* block) {
          core->objects.push_back(also(block));
          return true;
        }))
      return nullptr;
    if (core->objects.size() != core->blocks.blocks()) return wrong("stripes of other blocks");
    PyObject* const done = adopt<Words>(self, std::move(core));
    if (done == nullptr) return nullptr;
    Words& w = body<Words>(self);
    w.size = static_cast<ssize_t>(w.core->blocks.blocks());
    w.stripes = static_cast<ssize_t>(w.core->blocks.stripes());
    publish(self);
    return done;
  } catch (const std::bad_alloc&) {
    return python.PyErr_NoMemory();
  }
}

PyMethod methods[] = {{"popleft", &method<popleft>, kNoArguments, nullptr},
                      {"popleft_n", &method<popleft_n>, kOneArgument, nullptr},
                      {"remove", &method<remove>, kOneArgument, nullptr},
                      {"append", &method<append>, kOneArgument, nullptr},
                      {"append_n", &method<append_n>, kOneArgument, nullptr},
                      {"prepend_n", &method<prepend_n>, kOneArgument, nullptr},
                      {"get_all_free_blocks", &method<get_all_free_blocks>, kNoArguments, nullptr},
                      {"begin", &begin, kArgumentTuple, nullptr},
                      {"add", &method<add>, kArgumentTuple, nullptr},
                      {"empty", &method<empty>, kNoArguments, nullptr},
                      {"cached_only", &method<cached_only>, kNoArguments, nullptr},
                      {"cached_only_blocks", &method<cached_only_blocks>, kNoArguments, nullptr},
                      {"withdraw", &method<withdraw>, kOneArgument, nullptr},
                      {"condemn", &method<condemn>, kArgumentTuple, nullptr},
                      {"pardon", &method<pardon>, kNoArguments, nullptr},
                      {"stripe_of", &method<stripe_of>, kOneArgument, nullptr},
                      {"is_condemned", &method<is_condemned>, kOneArgument, nullptr},
                      {"held", &method<held>, kOneArgument, nullptr},
                      {"ranges", &method<ranges>, kOneArgument, nullptr},
                      {"stack", &method<stack>, kOneArgument, nullptr},
                      {"cached_in", &method<cached_in>, kArgumentTuple, nullptr},
                      {"forget", &method<forget>, kOneArgument, nullptr},
                      {"forget_all", &method<forget_all>, kNoArguments, nullptr},
                      {nullptr, nullptr, 0, nullptr}};

// Blocks may know their pool, and that its queue.
int traverse(PyObject* self, PyVisit visit, void* of) noexcept {
  const Core* const core = body<Words>(self).core;
  if (core == nullptr) return 0;
  for (PyObject* const object : core->objects) {
    const int stop = visit(object, of);
    if (stop != 0) return stop;
  }
  return 0;
}

void end(PyObject* self) noexcept {
  python.PyObject_GC_UnTrack(self);
  dealloc<Words>(self);
}

PyObject* make() noexcept {
  if (!ready()) return nullptr;
  id_name = python.PyUnicode_InternFromString("block_id");
  callback_name = python.PyUnicode_InternFromString("before_evicting");
  if (id_name == nullptr || callback_name == nullptr) return nullptr;
  static PyMember members[] = {member("size", offsetof(Words, size), kReadOnly),
                               member("stripes", offsetof(Words, stripes), kReadOnly),
                               member("num_free_blocks", offsetof(Words, free), kReadOnly),
                               member("fresh", offsetof(Words, loose), kReadOnly),
                               member("aside", offsetof(Words, aside), kReadOnly),
                               member("condemned", offsetof(Words, condemned), kReadOnly),
                               member("refused", offsetof(Words, refused), kReadOnly),
                               {nullptr, 0, 0, 0, nullptr}};
  return make_type("_kvcached.FreeBlocks", sizeof(Words), &end, methods, members, &traverse);
}

}  // namespace

PyObject* free_blocks_type() noexcept { return once<&make>(); }

FreeCounts free_counts(PyObject* instance) noexcept {
  const Words& w = body<Words>(instance);
  return {w.free, w.loose, w.condemned};
}

}  // namespace kvcached::adapters
