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

// Calls `use` with each object; it returns false with an error set.
template <typename Use>
bool for_each(PyObject* objects, Use use) {
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

// `size`: of the body. What is pointed to must stay.
PyObject* make_type(const char* name, std::size_t size, void (*dealloc)(PyObject*),
                    PyMethod* methods, PyMember* members) noexcept;

}  // namespace kvcached::adapters
