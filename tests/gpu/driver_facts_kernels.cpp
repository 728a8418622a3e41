// Host functions of the kernels in driver_facts.hpp, for a GPU that runs those instead.
#include <cstdint>

#include "tests/sim/kernel.h"

namespace {

std::uint32_t* target(void** params) { return *static_cast<std::uint32_t**>(params[0]); }
std::uint32_t value(void** params) { return *static_cast<std::uint32_t*>(params[1]); }

}  // namespace

extern "C" {

__attribute__((visibility("default"))) void store_word(const sim_launch* /*launch*/,
                                                       void** params) {
  *target(params) = value(params);
}

__attribute__((visibility("default"))) void add_word(const sim_launch* /*launch*/, void** params) {
  *target(params) += value(params);
}
}
