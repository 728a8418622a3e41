// link: -lcudart_static -lrt -ldl
// NVIDIA's runtime, static, with default streams.
#include "tests/preload/programs/runtime.hpp"

int main() { return use_runtime(); }
