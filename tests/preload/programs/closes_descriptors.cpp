// link: -lcuda
// Closes what the first allocation opened besides files and makes a pipe of its own, in which must
// be what it wrote after a second allocation, from a part of the stack that is new.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>

#include "shim/driver/cuda_abi.hpp"
#include "tests/preload/programs/begin.hpp"

namespace {

__attribute__((noinline)) void allocate() {
  CUdeviceptr at = 0;
  CUipcMemHandle handle;
  const int result = cuMemAlloc_v2(&at, 8 << 20);
  std::printf("%d elastic %d\n", result,
              cuIpcGetMemHandle(&handle, at) == CUDA_ERROR_NOT_SUPPORTED);
}

__attribute__((noinline)) void allocate_deeper() {
  volatile char room[256 << 10];
  room[0] = 0;
  allocate();
  room[1] = room[0];
}

}  // namespace

int main() {
  use_gpu();
  const int first = dup(0);  // the lowest number that is free
  close(first);
  allocate();
  for (int i = first; i < first + 64; ++i) {
    struct stat about {};
    if (fstat(i, &about) == 0 && !S_ISREG(about.st_mode)) close(i);
  }
  int ends[2] = {-1, -1};
  const int made = pipe2(ends, O_NONBLOCK);
  const auto written = write(ends[1], "hello", 5);
  allocate_deeper();
  char got[64] = {};
  const auto count = read(ends[0], got, sizeof(got) - 1);
  std::printf("pipe %d: %zd of %zd: %s\n", made, count, written, got);
  return 0;
}
