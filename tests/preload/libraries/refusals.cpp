// Refuses kvcached's library alone what it asks of the system: the n-th call of a function from now
// on, and so many after it; or from the process's start on, by REFUSE="FUNCTION PASS COUNT".
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" {
void* __libc_malloc(std::size_t);          // NOLINT(bugprone-reserved-identifier)
void* __libc_realloc(void*, std::size_t);  // NOLINT(bugprone-reserved-identifier)
}

namespace {

std::atomic<std::uintptr_t> code_begin{0}, code_end{0};
char function[32];
std::atomic<long> until{0};   // calls before one is refused
std::atomic<long> refuse{0};  // so many then
std::atomic<long> refused{0};

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

void refuse_from_now(const char* name, long pass, long count) {
  refuse = 0;
  std::snprintf(function, sizeof(function), "%s", name);
  until = pass;
  refuse = count;
}

__attribute__((constructor)) void begin() {
  dl_iterate_phdr(&find_code, nullptr);
  char name[32];
  long pass = 0, count = 0;
  const char* const text = std::getenv("REFUSE");
  if (text != nullptr && std::sscanf(text, "%31s %ld %ld", name, &pass, &count) == 3)
    refuse_from_now(name, pass, count);
}

bool is_refused(const char* name, void* caller) {
  const auto at = reinterpret_cast<std::uintptr_t>(caller);
  if (refuse <= 0 || at < code_begin || at >= code_end || std::strcmp(name, function) != 0)
    return false;
  if (until.fetch_sub(1) > 0 || refuse.fetch_sub(1) <= 0) return false;
  ++refused;
  errno = EIO;
  return true;
}

// libc's own. Not by dlsym, in front of which the library stands.
void* next(const char* name) {
  for (const char* version : {"GLIBC_2.34", "GLIBC_2.33", "GLIBC_2.28", "GLIBC_2.25", "GLIBC_2.4",
                              "GLIBC_2.3", "GLIBC_2.10", "GLIBC_2.2.5", "GLIBC_2.17"})
    if (void* const found = dlvsym(RTLD_NEXT, name, version)) return found;
  std::abort();
}

}  // namespace

extern "C" {
#define EXPORTED __attribute__((visibility("default")))

// From now on: passes `pass` calls of the function and refuses `count`. Answers how many it has
// refused.
EXPORTED long inject_failures(const char* name, long pass, long count) {
  refuse_from_now(name, pass, count);
  return refused.exchange(0);
}

EXPORTED void* malloc(std::size_t size) {
  return is_refused("malloc", __builtin_return_address(0)) ? nullptr : __libc_malloc(size);
}
EXPORTED void* realloc(void* old, std::size_t size) {
  return is_refused("malloc", __builtin_return_address(0)) ? nullptr : __libc_realloc(old, size);
}

// NOLINTBEGIN(bugprone-macro-parentheses)
#define MAY_REFUSE(Result, name, parameters, arguments, failure)                     \
  EXPORTED Result name parameters {                                                  \
    static const auto own = reinterpret_cast<Result(*) parameters>(next(#name));     \
    return is_refused(#name, __builtin_return_address(0)) ? failure : own arguments; \
  }
// NOLINTEND(bugprone-macro-parentheses)
MAY_REFUSE(int, access, (const char* path, int mode) noexcept, (path, mode), -1)
MAY_REFUSE(int, fchmod, (int file, mode_t mode) noexcept, (file, mode), -1)
MAY_REFUSE(int, flock, (int file, int how) noexcept, (file, how), -1)
MAY_REFUSE(int, fstat, (int file, struct stat* out) noexcept, (file, out), -1)
MAY_REFUSE(int, fstatat, (int folder, const char* path, struct stat* out, int flags) noexcept,
           (folder, path, out, flags), -1)
MAY_REFUSE(int, stat, (const char* path, struct stat* out) noexcept, (path, out), -1)
MAY_REFUSE(int, posix_fallocate, (int file, off_t at, off_t size), (file, at, size), ENOSPC)
MAY_REFUSE(int, mkdir, (const char* path, mode_t mode) noexcept, (path, mode), -1)
MAY_REFUSE(void*, mmap,
           (void* at, std::size_t size, int protection, int flags, int file, off_t offset) noexcept,
           (at, size, protection, flags, file, offset), MAP_FAILED)
MAY_REFUSE(int, pthread_create,
           (pthread_t * out, const pthread_attr_t* how, void* (*run)(void*),
            void* argument) noexcept,
           (out, how, run, argument), EAGAIN)
MAY_REFUSE(ssize_t, read, (int file, void* out, std::size_t size), (file, out, size), -1)
MAY_REFUSE(ssize_t, write, (int file, const void* from, std::size_t size), (file, from, size), -1)
MAY_REFUSE(ssize_t, getrandom, (void* out, std::size_t size, unsigned flags), (out, size, flags),
           -1)
MAY_REFUSE(int, renameat2,
           (int a, const char* from, int b, const char* to, unsigned flags) noexcept,
           (a, from, b, to, flags), -1)
MAY_REFUSE(int, unlinkat, (int folder, const char* path, int flags) noexcept, (folder, path, flags),
           -1)

EXPORTED int open(const char* path, int flags, ...) {
  static const auto own = reinterpret_cast<int (*)(const char*, int, ...)>(next("open"));
  __builtin_va_list more;
  __builtin_va_start(more, flags);
  const auto mode = __builtin_va_arg(more, int);
  __builtin_va_end(more);
  return is_refused("open", __builtin_return_address(0)) ? -1 : own(path, flags, mode);
}
EXPORTED int openat(int folder, const char* path, int flags, ...) {
  static const auto own = reinterpret_cast<int (*)(int, const char*, int, ...)>(next("openat"));
  __builtin_va_list more;
  __builtin_va_start(more, flags);
  const auto mode = __builtin_va_arg(more, int);
  __builtin_va_end(more);
  return is_refused("openat", __builtin_return_address(0)) ? -1 : own(folder, path, flags, mode);
}
EXPORTED int fcntl(int file, int what, ...) {
  static const auto own = reinterpret_cast<int (*)(int, int, ...)>(next("fcntl"));
  __builtin_va_list more;
  __builtin_va_start(more, what);
  void* const argument = __builtin_va_arg(more, void*);
  __builtin_va_end(more);
  return is_refused("fcntl", __builtin_return_address(0)) ? -1 : own(file, what, argument);
}
}
