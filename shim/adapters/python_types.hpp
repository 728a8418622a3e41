// What the types that the library gives to Python have in common.
//
// Every call wants the interpreter's lock.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

#include "shim/adapters/python_abi.hpp"

namespace kvcached::adapters {

// As ready() finds them.
extern Python python;
extern PyObject* none;
extern PyObject* value_error;
extern PyObject* attribute_error;
extern PyObject* list_type;
extern ssize_t head;  // bytes that Python itself keeps at the begin of an instance

// False when there is no CPython, or one that lacks something. To be asked before all else.
bool ready() noexcept;

// Holds one reference.
class Owned {
 public:
  explicit Owned(PyObject* object = nullptr) noexcept : object_(object) {}
  ~Owned() { reset(nullptr); }
  Owned(Owned&& other) noexcept : object_(other.release()) {}
  Owned& operator=(Owned&&) = delete;
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  explicit operator bool() const noexcept { return object_ != nullptr; }
  PyObject* get() const noexcept { return object_; }
  PyObject* release() noexcept { return std::exchange(object_, nullptr); }
  // Letting go of an object may run code of its own, which finds this one as it will be.
  void reset(PyObject* object) noexcept {
    PyObject* const before = std::exchange(object_, object);
    if (before != nullptr) python.Py_DecRef(before);
  }

 private:
  PyObject* object_;
};

inline PyObject* also(PyObject* object) noexcept {
  python.Py_IncRef(object);
  return object;
}

// Sets a ValueError and answers null.
inline PyObject* wrong(const char* text) noexcept {
  python.PyErr_SetString(value_error, text);
  return nullptr;
}

// False, with an error set, when it is no number that fits.
inline bool number(PyObject* object, ssize_t& out) noexcept {
  out = python.PyLong_AsSsize_t(object);
  return out != -1 || python.PyErr_Occurred() == nullptr;
}

constexpr std::size_t kWord = sizeof(void*);

// A word of an object's memory.
inline PyObject* word(PyObject* object, std::size_t offset) noexcept {
  return *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object) + offset);
}

// Whether an object is one of this type itself, which is not null. False, too, where that is not
// known: in an interpreter without the lock, whose objects begin in another way.
inline bool is_exactly(PyObject* object, const PyObject* type) noexcept {
  return head == 2 * kWord && word(object, kWord) == type;
}

// An attribute that the instances of one type keep in a slot, read where it lies: without a look-up
// by name, which takes long where the processor's caches hold something else.
class Slot {
 public:
  // `bare`: an instance whose attribute of this name is a slot, in which it has an object of its
  // own.
  void find(PyObject* bare, PyObject* name) noexcept;
  // Borrowed. Null, with no error set, where it has to be looked up: of an object of another type,
  // or when nothing is in the slot. Runs no code of Python.
  PyObject* of(PyObject* object) const noexcept {
    return offset_ != 0 && is_exactly(object, type_.get()) ? word(object, offset_) : nullptr;
  }

 private:
  Owned type_;
  std::size_t offset_ = 0;  // 0: unknown
};

// Calls `use` with each object; it returns false with an error set.
template <typename Use>
bool for_each(PyObject* objects, Use use) {
  if (is_exactly(objects, list_type)) {
    for (ssize_t i = 0; i < python.PyList_Size(objects); ++i) {  // which `use` may change
      const Owned held(also(python.PyList_GetItem(objects, i)));
      if (!use(held.get())) return false;
    }
    return true;
  }
  const Owned iterator(python.PyObject_GetIter(objects));
  if (!iterator) return false;
  while (PyObject* const object = python.PyIter_Next(iterator.get())) {
    const Owned held(object);
    if (!use(object)) return false;
  }
  return python.PyErr_Occurred() == nullptr;
}

// An instance's memory behind its head: zeros at first. `core` is its own, made by its begin().
template <typename Body>
Body& body(PyObject* self) noexcept {
  return *reinterpret_cast<Body*>(reinterpret_cast<char*>(self) + head);
}

// Gives an instance its core, which its begin() has made: once, also where what it iterated over
// has called it again. Answers None.
template <typename Body, typename Core>
PyObject* adopt(PyObject* self, std::unique_ptr<Core> core) noexcept {
  if (body<Body>(self).core != nullptr) return wrong("begin() was called before");
  body<Body>(self).core = core.release();
  return also(none);
}

// A type that is made at run time is let go of by each of its instances, and so are those derived.
template <typename Body>
void dealloc(PyObject* self) noexcept {
  const Owned type(python.PyObject_Type(self));
  delete body<Body>(self).core;
  reinterpret_cast<void (*)(PyObject*)>(python.PyType_GetSlot(type.get(), kSlotFree))(self);
  python.Py_DecRef(type.get());
}

// A new reference to what `kMake` makes at the first call that succeeds; else null.
template <PyObject* (*kMake)()>
PyObject* once() noexcept {
  static PyObject* made = nullptr;
  if (made == nullptr) made = kMake();
  return made == nullptr ? nullptr : also(made);
}

// Of a number in the body, for make_type().
inline PyMember member(const char* name, std::size_t offset, int flags,
                       int type = kSsize) noexcept {
  return {name, type, head + static_cast<ssize_t>(offset), flags, nullptr};
}

// `size`: of the body. What is pointed to must stay. `traverse`: for a type whose instances are
// part of cycles, shows Python's collector what they hold; its dealloc wants PyObject_GC_UnTrack()
// first.
PyObject* make_type(const char* name, std::size_t size, void (*dealloc)(PyObject*),
                    PyMethod* methods, PyMember* members, PyTraverse traverse = nullptr) noexcept;

}  // namespace kvcached::adapters
