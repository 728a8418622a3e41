// FreeBlocks as a type of CPython, `_kvcached.FreeBlocks`: the base of striped_queue.py.
#pragma once

#include "shim/adapters/python_abi.hpp"

namespace kvcached::adapters {

// A new reference to the type, made once a process; null, perhaps with an error set, on failure.
PyObject* free_blocks_type() noexcept;

}  // namespace kvcached::adapters
