#include "shim/adapters/python.hpp"

#include <dlfcn.h>

#include <atomic>
#include <cstdlib>
#include <string>
#include <vector>

#include "policy/settings.hpp"

extern "C" {
extern const char kvcached_source_bootstrap[];
#define MODULE(name) extern const char kvcached_source_##name[];
#include "shim/adapters/modules.inc"
#undef MODULE
}

namespace kvcached::adapters {
namespace {

struct PyObject;  // opaque

constexpr int kFileInput = 257;  // Py_file_input

struct Module {
  const char* name;
  const char* source;
};
const Module kModules[] = {
#define MODULE(name) {#name, kvcached_source_##name},
#include "shim/adapters/modules.inc"
#undef MODULE
};

// What we need of CPython: all of it is in the stable ABI since 3.2.
struct Python {
  int (*is_initialized)() = nullptr;
  int (*add_pending_call)(int (*)(void*), void*) = nullptr;
  PyObject* (*dict_new)() = nullptr;
  int (*dict_set)(PyObject*, const char*, PyObject*) = nullptr;
  PyObject* (*text)(const char*) = nullptr;
  PyObject* (*compile)(const char*, const char*, int) = nullptr;
  PyObject* (*evaluate)(PyObject*, PyObject*, PyObject*) = nullptr;
  PyObject* (*builtins)() = nullptr;
  void (*drop)(PyObject*) = nullptr;
  void (*clear_error)() = nullptr;

  bool resolve() noexcept;
};

template <typename Function>
bool find(Function& out, const char* name) noexcept {
  out = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
  return out != nullptr;
}

bool Python::resolve() noexcept {
  return find(is_initialized, "Py_IsInitialized") && find(add_pending_call, "Py_AddPendingCall") &&
         find(dict_new, "PyDict_New") && find(dict_set, "PyDict_SetItemString") &&
         find(text, "PyUnicode_FromString") && find(compile, "Py_CompileString") &&
         find(evaluate, "PyEval_EvalCode") && find(builtins, "PyEval_GetBuiltins") &&
         find(drop, "Py_DecRef") && find(clear_error, "PyErr_Clear");
}

bool wanted() noexcept {
  try {
    std::vector<std::string> complaints;  // the process object reports them
    const Settings settings =
        read_settings([](const char* name) { return std::getenv(name); }, complaints);
    return settings.adapters && !settings.disabled;
  } catch (...) {
    return false;
  }
}

// Adds `value` under `name` and drops our reference to it. False on failure.
bool put(const Python& python, PyObject* dict, const char* name, PyObject* value) noexcept {
  if (value == nullptr) return false;
  const bool done = python.dict_set(dict, name, value) == 0;
  python.drop(value);
  return done;
}

bool fill(const Python& python, PyObject* globals) noexcept {
  if (python.dict_set(globals, "__builtins__", python.builtins()) != 0) return false;
  if (!put(python, globals, "__name__", python.text("_kvcached.bootstrap"))) return false;
  PyObject* const sources = python.dict_new();
  if (sources == nullptr) return false;
  bool filled = true;
  for (const Module& module : kModules) {
    filled = filled && put(python, sources, module.name, python.text(module.source));
  }
  return put(python, globals, "SOURCES", sources) && filled;
}

// Runs in the main thread, with the interpreter's lock, between two of its instructions.
int bootstrap(void*) noexcept {
  Python python;
  if (!python.resolve()) return 0;
  PyObject* const globals = python.dict_new();
  PyObject* code = nullptr;
  PyObject* result = nullptr;
  if (globals != nullptr && fill(python, globals)) {
    code = python.compile(kvcached_source_bootstrap, "<kvcached>/bootstrap.py", kFileInput);
    if (code != nullptr) result = python.evaluate(code, globals, globals);
  }
  // A program must not notice us: whatever went wrong, it has no adapters and goes on.
  if (result == nullptr) python.clear_error();
  for (PyObject* object : {result, code, globals}) {
    if (object != nullptr) python.drop(object);
  }
  return 0;
}

}  // namespace

void python_seen() noexcept {
  static std::atomic<bool> done{false};
  if (done.load(std::memory_order_acquire)) return;
  static const bool want = wanted();
  if (!want) {
    done.store(true, std::memory_order_release);
    return;
  }
  Python python;
  if (!python.resolve() || python.is_initialized() == 0) return;
  if (done.exchange(true, std::memory_order_acq_rel)) return;
  // The queue of pending calls is short and may be full; then the next look-up tries again.
  if (python.add_pending_call(&bootstrap, nullptr) != 0) {
    done.store(false, std::memory_order_release);
  }
}

}  // namespace kvcached::adapters
