// The double of the runtime inside the program; "per-thread" or nothing.
#include <cstring>

#include "tests/preload/programs/miniruntime.hpp"
// NOLINTNEXTLINE(bugprone-suspicious-include): that is how it gets inside
#include "tests/preload/libraries/miniruntime.cpp"

namespace {

void* find(const char* name) {
  if (std::strcmp(name, "miniMalloc") == 0) return reinterpret_cast<void*>(&miniMalloc);
  if (std::strcmp(name, "miniFree") == 0) return reinterpret_cast<void*>(&miniFree);
  if (std::strcmp(name, "miniMemset") == 0) return reinterpret_cast<void*>(&miniMemset);
  if (std::strcmp(name, "miniMemcpyOut") == 0) return reinterpret_cast<void*>(&miniMemcpyOut);
  return reinterpret_cast<void*>(&miniIpc);
}

}  // namespace

int main(int, char** argv) { return use_miniruntime(find, argv[1] != nullptr); }
