// The types that the library gives to the adapters, for tests that run without it.
#include "shim/adapters/python_free_blocks.hpp"
#include "shim/adapters/vllm_demand.hpp"
#include "shim/adapters/vllm_glance.hpp"

using kvcached::adapters::PyObject;

extern "C" __attribute__((visibility("default"))) PyObject* kvcached_free_blocks_type() {
  return kvcached::adapters::free_blocks_type();
}

extern "C" __attribute__((visibility("default"))) PyObject* kvcached_vllm_demand_type() {
  return kvcached::adapters::vllm_demand_type();
}

extern "C" __attribute__((visibility("default"))) PyObject* kvcached_vllm_glance_type() {
  return kvcached::adapters::vllm_glance_type();
}
