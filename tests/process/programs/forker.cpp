// link: -lcuda
// Forks while one of its threads joins the pool, once it is told to by a line on standard input:
// "holds COUNT", of the pool's files that the child has open.
#include <cuda.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <thread>

#include "shim/include/kvcached.hpp"

namespace {

int pool_files() {
  int count = 0;
  for (int i = 0; i < 1024; ++i) {
    const std::string link = "/proc/self/fd/" + std::to_string(i);
    std::array<char, 512> target{};
    const ssize_t size = readlink(link.c_str(), target.data(), target.size());
    if (size <= 0) continue;
    const std::string_view name(target.data(), static_cast<std::size_t>(size));
    count += name.find("/GPU-") != std::string_view::npos ? 1 : 0;
  }
  return count;
}

}  // namespace

int main() {
  CUcontext context = nullptr;
  if (cuInit(0) != CUDA_SUCCESS || cuDevicePrimaryCtxRetain(&context, 0) != CUDA_SUCCESS) return 2;
  std::printf("here\n");
  std::fflush(stdout);
  std::string line;
  std::getline(std::cin, line);
  std::thread joining([&] {
    CUdeviceptr at = 0;
    cuCtxSetCurrent(context);
    kvcached_tag_push("kv");
    cuMemAlloc(&at, 64 << 20);
    kvcached_tag_pop();
  });
  usleep(200'000);
  const pid_t child = fork();
  if (child == 0) {
    std::printf("holds %d\n", pool_files());
    std::fflush(stdout);
    _exit(0);
  }
  waitpid(child, nullptr, 0);
  joining.join();
  std::printf("itself %d\n", pool_files());
  std::fflush(stdout);
  std::getline(std::cin, line);
  // A leak checker stops all threads of a process that ends, and the simulated driver's do not heed
  // it.
  std::_Exit(0);
}
