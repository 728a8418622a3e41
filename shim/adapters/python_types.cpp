#include "shim/adapters/python_types.hpp"

#include <cstddef>

namespace kvcached::adapters {

Python python;
PyObject* none = nullptr;
PyObject* value_error = nullptr;
PyObject* attribute_error = nullptr;
ssize_t head = 0;

bool ready() noexcept {
  if (none != nullptr) return true;
  if (!python.resolve()) return false;
  PyObject* const builtins = python.PyEval_GetBuiltins();
  value_error = python.PyDict_GetItemString(builtins, "ValueError");
  attribute_error = python.PyDict_GetItemString(builtins, "AttributeError");
  PyObject* const object = python.PyDict_GetItemString(builtins, "object");
  if (value_error == nullptr || attribute_error == nullptr || object == nullptr) return false;
  const Owned size(python.PyObject_GetAttrString(object, "__basicsize__"));
  if (!size) return false;
  // An interpreter without the lock has a larger head than others.
  constexpr auto kAlign = static_cast<ssize_t>(alignof(std::max_align_t));
  head = (python.PyLong_AsSsize_t(size.get()) + kAlign - 1) / kAlign * kAlign;
  none = python.Py_BuildValue("");
  return none != nullptr;
}

PyObject* make_type(const char* name, std::size_t size, void (*dealloc)(PyObject*),
                    PyMethod* methods, PyMember* members) noexcept {
  PySlot slots[] = {{kSlotDealloc, reinterpret_cast<void*>(dealloc)},
                    {kSlotNew, reinterpret_cast<void*>(python.PyType_GenericNew)},
                    {kSlotMethods, methods},
                    {kSlotMembers, members},
                    {0, nullptr}};
  PySpec spec = {name, static_cast<int>(head + static_cast<ssize_t>(size)), 0, kBaseType, slots};
  return python.PyType_FromSpec(&spec);
}

}  // namespace kvcached::adapters
