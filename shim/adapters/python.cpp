#include "shim/adapters/python.hpp"

#include <atomic>
#include <cstdlib>
#include <string>
#include <vector>

#include "policy/settings.hpp"
#include "shim/adapters/python_abi.hpp"
#include "shim/adapters/python_free_blocks.hpp"
#include "shim/adapters/vllm_demand.hpp"
#include "shim/adapters/vllm_glance.hpp"

extern "C" {
extern const char kvcached_source_bootstrap[];
#define MODULE(name) extern const char kvcached_source_##name[];
#include "shim/adapters/modules.inc"
#undef MODULE
}

namespace kvcached::adapters {
namespace {

struct Module {
  const char* name;
  const char* source;
};
const Module kModules[] = {
#define MODULE(name) {#name, kvcached_source_##name},
#include "shim/adapters/modules.inc"
#undef MODULE
};

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
  const bool done = python.PyDict_SetItemString(dict, name, value) == 0;
  python.Py_DecRef(value);
  return done;
}

bool fill(const Python& python, PyObject* globals) noexcept {
  if (python.PyDict_SetItemString(globals, "__builtins__", python.PyEval_GetBuiltins()) != 0)
    return false;
  if (!put(python, globals, "__name__", python.PyUnicode_FromString("_kvcached.bootstrap")))
    return false;
  PyObject* const sources = python.PyDict_New();
  if (sources == nullptr) return false;
  bool filled = true;
  for (const Module& module : kModules) {
    filled =
        filled && put(python, sources, module.name, python.PyUnicode_FromString(module.source));
  }
  filled = put(python, globals, "SOURCES", sources) && filled;
  return put(python, globals, "FreeBlocks", free_blocks_type()) &&
         put(python, globals, "Demand", vllm_demand_type()) &&
         put(python, globals, "Glance", vllm_glance_type()) && filled;
}

// Runs in the main thread, with the interpreter's lock, between two of its instructions.
int bootstrap(void*) noexcept {
  Python python;
  if (!python.resolve()) return 0;
  PyObject* const globals = python.PyDict_New();
  PyObject* code = nullptr;
  PyObject* result = nullptr;
  if (globals != nullptr && fill(python, globals)) {
    code =
        python.Py_CompileString(kvcached_source_bootstrap, "<kvcached>/bootstrap.py", kFileInput);
    if (code != nullptr) result = python.PyEval_EvalCode(code, globals, globals);
  }
  // A program must not notice us: whatever went wrong, it has no adapters and goes on.
  if (result == nullptr) python.PyErr_Clear();
  for (PyObject* object : {result, code, globals}) {
    if (object != nullptr) python.Py_DecRef(object);
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
  if (!python.resolve() || python.Py_IsInitialized() == 0) return;
  if (done.exchange(true, std::memory_order_acq_rel)) return;
  // The queue of pending calls is short and may be full; then the next look-up tries again.
  if (python.Py_AddPendingCall(&bootstrap, nullptr) != 0) {
    done.store(false, std::memory_order_release);
  }
}

}  // namespace kvcached::adapters
