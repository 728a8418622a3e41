// link: -lcuda
// A buffer that nobody claims, and a GPU that another process fills before the first use: what
// does the program hear? Prints the answers of the fill and of what comes after.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "shim/driver/cuda_abi.hpp"
#include "tests/preload/programs/begin.hpp"

namespace {

constexpr std::size_t kSize = 64 << 20;

void begin() { use_gpu(); }

// Takes all physical memory when told to, and gives it back when told again.
void fill_the_gpu(int orders, int answers) {
  char word = 0;
  read(orders, &word, 1);
  begin();
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  CUmemGenericAllocationHandle taken[256];
  int count = 0;
  while (count < 256 && cuMemCreate(&taken[count], 2 << 20, &properties, 0) == CUDA_SUCCESS) {
    ++count;
  }
  write(answers, &word, 1);
  read(orders, &word, 1);
  while (count > 0) cuMemRelease(taken[--count]);
  write(answers, &word, 1);
}

}  // namespace

int main() {
  int orders[2];
  int answers[2];
  if (pipe(orders) != 0 || pipe(answers) != 0) return 1;
  const pid_t other = fork();
  if (other == 0) {
    fill_the_gpu(orders[0], answers[1]);
    _exit(0);
  }
  const auto order = [&] {
    char word = 0;
    write(orders[1], &word, 1);
    read(answers[0], &word, 1);
  };
  begin();
  CUdeviceptr elastic = 0;
  std::printf("alloc %d\n", cuMemAlloc_v2(&elastic, kSize));
  order();
  std::printf("fill %d\n", cuMemsetD8_v2(elastic, 1, kSize));
  order();
  std::printf("fill %d\n", cuMemsetD8_v2(elastic, 2, kSize));
  unsigned char last = 0;
  std::printf("read %d\n", cuMemcpyDtoH_v2(&last, elastic + kSize - 1, 1));
  std::printf("last %d\n", last);
  std::printf("free %d\n", cuMemFree_v2(elastic));
  waitpid(other, nullptr, 0);
  return 0;
}
