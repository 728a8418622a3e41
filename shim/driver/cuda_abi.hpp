// The CUDA driver's types and functions, every generation of them under its own name: without the
// definition below cuda.h renames cuMemAlloc to cuMemAlloc_v2 and so on.
#pragma once

#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>
