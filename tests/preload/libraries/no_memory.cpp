// Refuses memory to kvcached's library alone: its n-th allocation from now on, and so many after
// it; or from the process's begin on, by REFUSE_MEMORY="PASS COUNT".
#include <link.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

extern "C" {
void* __libc_malloc(std::size_t);          // NOLINT(bugprone-reserved-identifier)
void* __libc_realloc(void*, std::size_t);  // NOLINT(bugprone-reserved-identifier)
}

namespace {

std::atomic<std::uintptr_t> code_begin{0}, code_end{0};
std::atomic<long> until{0};   // allocations before one is refused
std::atomic<long> refuse{0};  // so many then
std::atomic<long> refused{0};

void refuse_from_now(long pass, long count) {
  refuse = 0;
  until = pass;
  refuse = count;
}

int find_code(dl_phdr_info* info, std::size_t, void*) {
  const char* const name = std::strrchr(info->dlpi_name, '/');
  if (name == nullptr || std::strcmp(name, "/libkvcached.so") != 0) return 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& part = info->dlpi_phdr[i];
    if (part.p_type != PT_LOAD || (part.p_flags & PF_X) == 0) continue;
    code_begin = info->dlpi_addr + part.p_vaddr;
    code_end = info->dlpi_addr + part.p_vaddr + part.p_memsz;
  }
  return 1;
}

__attribute__((constructor)) void begin() {
  dl_iterate_phdr(&find_code, nullptr);
  const char* const text = std::getenv("REFUSE_MEMORY");
  if (text == nullptr) return;
  char* rest = nullptr;
  const long pass = std::strtol(text, &rest, 10);
  refuse_from_now(pass, std::strtol(rest, nullptr, 10));
}

bool is_refused(void* caller) {
  const auto at = reinterpret_cast<std::uintptr_t>(caller);
  if (at < code_begin || at >= code_end || refuse <= 0) return false;
  if (until.fetch_sub(1) > 0 || refuse.fetch_sub(1) <= 0) return false;
  ++refused;
  return true;
}

}  // namespace

extern "C" {

// From now on: passes `pass` allocations and refuses `count`. Answers how many it has refused.
__attribute__((visibility("default"))) long refuse_memory(long pass, long count) {
  refuse_from_now(pass, count);
  return refused.exchange(0);
}

__attribute__((visibility("default"))) void* malloc(std::size_t size) {
  return is_refused(__builtin_return_address(0)) ? nullptr : __libc_malloc(size);
}

__attribute__((visibility("default"))) void* realloc(void* old, std::size_t size) {
  return is_refused(__builtin_return_address(0)) ? nullptr : __libc_realloc(old, size);
}
}
