// Kernels of the simulated GPU that find the memory they write in different places.
#include <cstdint>
#include <cstring>

#include "tests/sim/kernel.h"

namespace {

void write_to(std::uint64_t address) {
  std::memset(reinterpret_cast<void*>(address), 7, 1);  // NOLINT(performance-no-int-to-ptr)
}

}  // namespace

#define KERNEL extern "C" __attribute__((visibility("default"))) void

KERNEL by_pointer(const sim_launch* /*launch*/, void** params) {
  write_to(*static_cast<std::uint64_t*>(params[1]));
}
KERNEL by_structure(const sim_launch* /*launch*/, void** params) {
  write_to(static_cast<std::uint64_t*>(params[0])[2]);
}
KERNEL ignores(const sim_launch* /*launch*/, void** /*params*/) {}
KERNEL of_nothing(const sim_launch* /*launch*/, void** /*params*/) {}
