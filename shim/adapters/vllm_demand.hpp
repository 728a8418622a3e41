// What vLLM's scheduler will take in its next steps, as a type of CPython, `_kvcached.Demand`: the
// base of vllm_cache.Needs. Here, because it is asked before every step that differs from the one
// before, when little of it is in the processor's caches.
#pragma once

#include <sys/types.h>

#include "shim/adapters/python_abi.hpp"

namespace kvcached::adapters {

// A new reference to the type, made once a process; null, perhaps with an error set, on failure.
PyObject* vllm_demand_type() noexcept;

// What look() answers.
struct Look {
  ssize_t now = 0;     // blocks that the step will take
  ssize_t later = 0;   // what the next ones may beyond
  ssize_t surely = 0;  // so many suffice for the step
  ssize_t steps = 0;   // for which that is about all that can be said
};

// As look() answers it: a new reference, or null with an error set.
PyObject* to_python(const Look& look) noexcept;

// look() and same() of an instance. False, or below 0, with an error set.
bool look_ahead(PyObject* instance, PyObject* scheduler, Look& out) noexcept;
int is_same(PyObject* instance, PyObject* scheduler) noexcept;

}  // namespace kvcached::adapters
