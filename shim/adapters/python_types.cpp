#include "shim/adapters/python_types.hpp"

#include <cstddef>

namespace kvcached::adapters {

Python python;
PyObject* none = nullptr;
PyObject* value_error = nullptr;
PyObject* attribute_error = nullptr;
PyObject* list_type = nullptr;
ssize_t head = 0;

bool ready() noexcept {
  if (none != nullptr) return true;
  if (!python.resolve()) return false;
  PyObject* const builtins = python.PyEval_GetBuiltins();
  value_error = python.PyDict_GetItemString(builtins, "ValueError");
  attribute_error = python.PyDict_GetItemString(builtins, "AttributeError");
  list_type = python.PyDict_GetItemString(builtins, "list");
  PyObject* const object = python.PyDict_GetItemString(builtins, "object");
  if (value_error == nullptr || attribute_error == nullptr || list_type == nullptr ||
      object == nullptr)
    return false;
  const Owned size(python.PyObject_GetAttrString(object, "__basicsize__"));
  if (!size) return false;
  // An interpreter without the lock has a larger head than others.
  constexpr auto kAlign = static_cast<ssize_t>(alignof(std::max_align_t));
  head = (python.PyLong_AsSsize_t(size.get()) + kAlign - 1) / kAlign * kAlign;
  none = python.Py_BuildValue("");
  return none != nullptr;
}

void Slot::find(PyObject* bare, PyObject* name) noexcept {
  type_.reset(python.PyObject_Type(bare));
  const Owned value(python.PyObject_GetAttr(bare, name));
  const Owned size(python.PyObject_GetAttrString(type_.get(), "__basicsize__"));
  ssize_t bytes = 0;
  if (value && size && number(size.get(), bytes)) {
    const auto end = static_cast<std::size_t>(bytes);
    for (auto at = static_cast<std::size_t>(head); at + kWord <= end; at += kWord) {
      if (word(bare, at) == value.get()) offset_ = at;
    }
  }
  python.PyErr_Clear();
}

PyObject* make_type(const char* name, std::size_t size, void (*dealloc)(PyObject*),
                    PyMethod* methods, PyMember* members, PyTraverse traverse) noexcept {
  PySlot slots[] = {{kSlotDealloc, reinterpret_cast<void*>(dealloc)},
                    {kSlotNew, reinterpret_cast<void*>(python.PyType_GenericNew)},
                    {kSlotMethods, methods},
                    {kSlotMembers, members},
                    {traverse != nullptr ? kSlotTraverse : 0, reinterpret_cast<void*>(traverse)},
                    {0, nullptr}};
  const unsigned flags = traverse != nullptr ? kBaseType | kCollected : kBaseType;
  PySpec spec = {name, static_cast<int>(head + static_cast<ssize_t>(size)), 0, flags, slots};
  return python.PyType_FromSpec(&spec);
}

}  // namespace kvcached::adapters
