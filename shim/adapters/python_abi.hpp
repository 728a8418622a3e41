// What the library uses of CPython, found in the process: all of it in the stable ABI since 3.4, so
// that nothing of Python is needed to build it.
//
// Every call wants the interpreter's lock.
#pragma once

#include <sys/types.h>

#include <cstddef>

namespace kvcached::adapters {

struct PyObject;  // opaque

// The layouts that a type is made from. Each list of them ends with one of zeros.
struct PyMethod {  // PyMethodDef
  const char* name;
  PyObject* (*function)(PyObject*, PyObject*);
  int flags;
  const char* doc;
};
constexpr int kNoArguments = 0x0004;    // METH_NOARGS
constexpr int kOneArgument = 0x0008;    // METH_O
constexpr int kArgumentTuple = 0x0001;  // METH_VARARGS

struct PyMember {  // PyMemberDef. NOLINT(clang-analyzer-optin.performance.Padding)
  const char* name;
  int type;
  ssize_t offset;
  int flags;
  const char* doc;
};
constexpr int kDouble = 4;    // T_DOUBLE
constexpr int kSsize = 19;    // T_PYSSIZET
constexpr int kReadOnly = 1;  // READONLY

struct PySlot {  // PyType_Slot
  int slot;
  void* value;
};
constexpr int kSlotLength = 45, kSlotIter = 62;  // Py_sq_length, Py_tp_iter
constexpr int kSlotDealloc = 52, kSlotMethods = 64, kSlotNew = 65, kSlotTraverse = 71,
              kSlotMembers = 72, kSlotFree = 74;

struct PySpec {  // PyType_Spec
  const char* name;
  int basic_size;
  int item_size;
  unsigned flags;
  PySlot* slots;
};
constexpr unsigned kBaseType = 1U << 10 | 1U << 18;  // BASETYPE, DEFAULT
constexpr unsigned kCollected = 1U << 14;            // HAVE_GC

using PyVisit = int (*)(PyObject*, void*);                      // visitproc
using PyTraverse = int (*)(PyObject* self, PyVisit, void* of);  // traverseproc

constexpr int kFileInput = 257;  // Py_file_input

struct Python {
#define KVCACHED_PYTHON(USE)                                           \
  USE(int, Py_IsInitialized, ())                                       \
  USE(int, Py_AddPendingCall, (int (*)(void*), void*))                 \
  USE(void, Py_IncRef, (PyObject*))                                    \
  USE(void, Py_DecRef, (PyObject*))                                    \
  USE(PyObject*, Py_CompileString, (const char*, const char*, int))    \
  USE(PyObject*, PyEval_EvalCode, (PyObject*, PyObject*, PyObject*))   \
  USE(PyObject*, PyEval_GetBuiltins, ())                               \
  USE(PyObject*, PyDict_New, ())                                       \
  USE(int, PyDict_SetItemString, (PyObject*, const char*, PyObject*))  \
  USE(PyObject*, PyDict_GetItemString, (PyObject*, const char*))       \
  USE(PyObject*, PyUnicode_FromString, (const char*))                  \
  USE(PyObject*, PyUnicode_InternFromString, (const char*))            \
  USE(PyObject*, PyLong_FromSsize_t, (ssize_t))                        \
  USE(ssize_t, PyLong_AsSsize_t, (PyObject*))                          \
  USE(PyObject*, PyBool_FromLong, (long))                              \
  USE(PyObject*, PyList_New, (ssize_t))                                \
  USE(ssize_t, PyList_Size, (PyObject*))                               \
  USE(PyObject*, PyList_GetItem, (PyObject*, ssize_t))                 \
  USE(int, PyList_SetItem, (PyObject*, ssize_t, PyObject*))            \
  USE(PyObject*, PyObject_GetAttr, (PyObject*, PyObject*))             \
  USE(PyObject*, PyObject_GetAttrString, (PyObject*, const char*))     \
  USE(ssize_t, PyObject_Size, (PyObject*))                             \
  USE(int, PyObject_IsInstance, (PyObject*, PyObject*))                \
  USE(int, PyObject_IsTrue, (PyObject*))                               \
  USE(PyObject*, PySequence_GetItem, (PyObject*, ssize_t))             \
  USE(PyObject*, PyObject_GetIter, (PyObject*))                        \
  USE(PyObject*, PyIter_Next, (PyObject*))                             \
  USE(PyObject*, PyObject_CallFunctionObjArgs, (PyObject*, ...))       \
  USE(int, PyArg_ParseTuple, (PyObject*, const char*, ...))            \
  USE(PyObject*, Py_BuildValue, (const char*, ...))                    \
  USE(PyObject*, PyObject_Type, (PyObject*))                           \
  USE(void, PyObject_GC_UnTrack, (void*))                              \
  USE(void*, PyType_GetSlot, (PyObject*, int))                         \
  USE(int, PyType_IsSubtype, (PyObject*, PyObject*))                   \
  USE(PyObject*, PyType_FromSpec, (PySpec*))                           \
  USE(PyObject*, PyType_GenericNew, (PyObject*, PyObject*, PyObject*)) \
  USE(PyObject*, PyErr_Occurred, ())                                   \
  USE(int, PyErr_ExceptionMatches, (PyObject*))                        \
  USE(PyObject*, PyErr_NoMemory, ())                                   \
  USE(void, PyErr_SetString, (PyObject*, const char*))                 \
  USE(void, PyErr_Clear, ())
// NOLINTNEXTLINE(bugprone-macro-parentheses)
#define USE(Result, Name, Arguments) Result(*Name) Arguments = nullptr;
  KVCACHED_PYTHON(USE)
#undef USE

  // False when this process has no CPython, or one that lacks some of it. Any thread.
  bool resolve() noexcept;
};

}  // namespace kvcached::adapters
