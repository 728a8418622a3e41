#pragma once

// What cuda.h includes, so that the pragma below does not reach it.
#include <cstdint>
#include <cstdlib>

// Every generation of the driver's functions (cuMemAlloc and cuMemAlloc_v2, ..._ptsz) under its own
// name, exported, and not replaced in here when a preloaded library exports the same name.
#define __CUDA_API_VERSION_INTERNAL
#pragma GCC visibility push(protected)
#include <cuda.h>
#pragma GCC visibility pop
