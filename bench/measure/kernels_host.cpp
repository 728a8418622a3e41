// The benchmarks' kernel as a host function, for the simulated GPU (SIM_GPU_KERNELS).
#include "tests/sim/kernel.h"

extern "C" __attribute__((visibility("default"))) void bench_nothing(const sim_launch* /*launch*/,
                                                                     void** /*params*/) {}
