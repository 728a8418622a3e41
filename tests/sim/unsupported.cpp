// Every driver function that no other file implements: there, but refusing. It is weak, so that an
// implementation replaces it. cuda.h stays out of here: its declarations have other types.
extern "C" {

__attribute__((visibility("hidden"))) int sim_not_supported() noexcept { return 801; }

#define SIM_API(name, version, per_thread, symbol) \
  __attribute__((visibility("protected"), weak, alias("sim_not_supported"))) int symbol() noexcept;
#include "tests/sim/api.inc"
#undef SIM_API
}
