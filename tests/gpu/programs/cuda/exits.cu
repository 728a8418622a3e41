// Ends with memory in hand, in every order: kept, freed by a static object, freed at exit.
#include <unistd.h>

#include <cstring>

#include "check.hpp"

namespace {

unsigned char* g_late = nullptr;

struct Static {
  unsigned char* held = nullptr;
  ~Static() {
    // The runtime may be gone by now: whatever it answers, the process ends in peace.
    if (held != nullptr) cudaFree(held);
  }
};
Static g_static;

}  // namespace

int main() {
  MUST(cudaMalloc(&g_static.held, 8 * kMiB));
  MUST(cudaMalloc(&g_late, 8 * kMiB));
  std::atexit([] {
    cudaFree(g_late);
    std::printf("at exit\n");
  });
  unsigned char* kept;
  MUST(cudaMalloc(&kept, 64 * kMiB));
  fill<<<64, 256>>>(kept, 64 * kMiB, 2u);
  show_digest("kept", kept, 64 * kMiB);
  unsigned char* untouched;
  MUST(cudaMalloc(&untouched, 64 * kMiB));
  fill<<<4096, 256>>>(kept, 64 * kMiB, 3u);  // still running when the program ends
  return 7;
}
