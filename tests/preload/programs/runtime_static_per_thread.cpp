// link: -lcudart_static -lrt -ldl
// NVIDIA's runtime, static, with per-thread default streams.
#define CUDA_API_PER_THREAD_DEFAULT_STREAM
#include "tests/preload/programs/runtime.hpp"

int main() { return use_runtime(); }
