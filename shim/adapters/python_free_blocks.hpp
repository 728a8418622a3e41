// FreeBlocks as a type of CPython, `_kvcached.FreeBlocks`: the base of striped_queue.py.
#pragma once

#include <sys/types.h>

#include "shim/adapters/python_abi.hpp"

namespace kvcached::adapters {

// A new reference to the type, made once a process; null, perhaps with an error set, on failure.
PyObject* free_blocks_type() noexcept;

// What an instance shows to Python.
struct FreeCounts {
  ssize_t free, loose, condemned;
};
FreeCounts free_counts(PyObject* instance) noexcept;

}  // namespace kvcached::adapters
