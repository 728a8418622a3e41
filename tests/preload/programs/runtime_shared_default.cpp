// link: -lcudart
// NVIDIA's runtime, shared, with default streams.
#include "tests/preload/programs/runtime.hpp"

int main() { return use_runtime(); }
