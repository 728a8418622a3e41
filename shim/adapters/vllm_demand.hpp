// What vLLM's scheduler will take in its next steps, as a type of CPython, `_kvcached.Demand`: the
// base of vllm_cache.Needs. Here, because it is asked before every step that differs from the one
// before, when little of it is in the processor's caches.
#pragma once

#include "shim/adapters/python_abi.hpp"

namespace kvcached::adapters {

// A new reference to the type, made once a process; null, perhaps with an error set, on failure.
PyObject* vllm_demand_type() noexcept;

}  // namespace kvcached::adapters
