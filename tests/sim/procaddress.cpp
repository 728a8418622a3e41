// cuGetProcAddress: which generation of a function a program gets.
#include <cstring>

#include "tests/sim/cuda_api.hpp"
#include "tests/sim/faults.hpp"

namespace sim::symbols {

// By assembler names: what matters here is the address, not the type.
#define SIM_API(name, version, per_thread, symbol) \
  extern "C" __attribute__((visibility("protected"))) void address_of_##symbol() __asm__(#symbol);
#include "tests/sim/api.inc"
#undef SIM_API

}  // namespace sim::symbols

namespace sim {
namespace {

struct Symbol {
  const char* name;
  int version;
  bool per_thread;
  void (*address)();
};

constexpr int kDriverVersion = 13000;

const Symbol kSymbols[] = {
#define SIM_API(name, version, per_thread, symbol) \
  {#name, version, (per_thread) != 0, &symbols::address_of_##symbol},
#include "tests/sim/api.inc"
#undef SIM_API
    // Since 12.0 the name means the newer function.
    {"cuGraphInstantiate", 12000, false, &symbols::address_of_cuGraphInstantiateWithFlags},
};

CUresult find(const char* name, void** address, int version, cuuint64_t flags,
              CUdriverProcAddressQueryResult& status) {
  if (const CUresult fault = injected_fault("cuGetProcAddress")) return fault;
  if (name == nullptr || address == nullptr || version > kDriverVersion ||
      flags > CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const bool per_thread = flags == CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
  const Symbol* best = nullptr;
  status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  *address = nullptr;
  for (const Symbol& symbol : kSymbols) {
    if (std::strcmp(symbol.name, name) != 0 || (symbol.per_thread && !per_thread)) continue;
    if (symbol.version > version) {
      if (best == nullptr) status = CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
      continue;
    }
    // One of its own for threads goes before any other; the newest of those, as of the others.
    if (best == nullptr || symbol.per_thread > best->per_thread ||
        (symbol.per_thread == best->per_thread && symbol.version > best->version)) {
      best = &symbol;
    }
  }
  if (best == nullptr) return CUDA_ERROR_NOT_FOUND;
  status = CU_GET_PROC_ADDRESS_SUCCESS;
  *address = reinterpret_cast<void*>(best->address);
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace sim

CUresult cuGetProcAddress(const char* name, void** address, int version, cuuint64_t flags) {
  CUdriverProcAddressQueryResult status{};
  return sim::find(name, address, version, flags, status);
}

CUresult cuGetProcAddress_v2(const char* name, void** address, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult* status) {
  CUdriverProcAddressQueryResult found{};
  const CUresult result = sim::find(name, address, version, flags, found);
  if (status != nullptr) *status = found;
  return result;
}

CUresult cuGetExportTable(const void** table, const CUuuid* /*id*/) {
  if (table == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *table = nullptr;
  return CUDA_ERROR_NOT_FOUND;
}
