// What is looked at before and after each step of vLLM's scheduler, as a type of CPython,
// `_kvcached.Glance`: the base of balloon.Balloon. Nearly always nothing has to be done; where a
// step takes a few milliseconds, to find that out in Python is felt.
#pragma once

#include "shim/adapters/python_abi.hpp"

namespace kvcached::adapters {

// A new reference to the type, made once a process; null, perhaps with an error set, on failure.
PyObject* vllm_glance_type() noexcept;

}  // namespace kvcached::adapters
