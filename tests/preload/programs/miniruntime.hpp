// What a program does with the double of the runtime. `find` answers its functions by name.
#pragma once

#include <cstddef>
#include <cstdio>

template <class Find>
int use_miniruntime(Find find, bool per_thread) {
  auto* allocate = reinterpret_cast<int (*)(void**, std::size_t)>(find("miniMalloc"));
  auto* release = reinterpret_cast<int (*)(void*)>(find("miniFree"));
  auto* set = reinterpret_cast<int (*)(void*, int, std::size_t, bool)>(find("miniMemset"));
  auto* copy =
      reinterpret_cast<int (*)(void*, const void*, std::size_t, bool)>(find("miniMemcpyOut"));
  auto* share = reinterpret_cast<int (*)(void*)>(find("miniIpc"));
  void* at = nullptr;
  std::printf("malloc %d\n", allocate(&at, 8 << 20));
  std::printf("memset %d\n", set(at, 7, 8 << 20, per_thread));
  unsigned char last = 0;
  const void* end = static_cast<char*>(at) + (8 << 20) - 1;
  std::printf("memcpy %d\n", copy(&last, end, 1, per_thread));
  std::printf("last %d\n", last);
  std::printf("elastic %d\n", share(at) == 801);
  std::printf("free %d\n", release(at));
  std::printf("free again %d\n", release(at));
  return 0;
}
