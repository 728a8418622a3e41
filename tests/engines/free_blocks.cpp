// The type that the library gives to the adapters, for tests that run without it.
#include "shim/adapters/python_free_blocks.hpp"

extern "C" __attribute__((visibility("default"))) kvcached::adapters::PyObject*
kvcached_free_blocks_type() {
  return kvcached::adapters::free_blocks_type();
}
