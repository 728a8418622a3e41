// FreeBlocks as a type of CPython, `_kvcached.FreeBlocks`: the base of striped_queue.py.
#pragma once

#include "shim/adapters/python_abi.hpp"

namespace kvcached::adapters {

// A new reference to the type, made once a process; null, with an error set, on failure.
PyObject* free_blocks_type() noexcept;

}  // namespace kvcached::adapters
