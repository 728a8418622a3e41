// Children by fork and by exec, a child that dies with memory in hand, and a parent that works on.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "check.hpp"

extern char** environ;

namespace {

constexpr std::size_t kCount = 4 * kMiB;

int work(unsigned seed, bool crash) {
  unsigned* p;
  MUST(cudaMalloc(&p, kCount * 4));
  fill<<<64, 256>>>(p, kCount, seed);
  show_digest("child", p, kCount * 4);
  std::fflush(stdout);
  if (crash) abort();
  MUST(cudaFree(p));
  return static_cast<int>(seed);
}

void wait_for(const char* what, pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  std::printf("%s: exited %d code %d signal %d\n", what, WIFEXITED(status), WEXITSTATUS(status),
              WIFSIGNALED(status) ? WTERMSIG(status) : 0);
  std::fflush(stdout);
}

pid_t spawn(char* self, const char* argument) {
  char* arguments[] = {self, const_cast<char*>(argument), nullptr};
  pid_t child = 0;
  if (posix_spawn(&child, self, nullptr, nullptr, arguments, environ) != 0) std::exit(3);
  return child;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) return work(static_cast<unsigned>(std::atoi(argv[1])), std::strcmp(argv[1], "66") == 0);
  // Before CUDA is up, fork is allowed.
  for (unsigned i = 1; i <= 3; ++i) {
    const pid_t child = fork();
    if (child == 0) std::exit(work(i, false));
    wait_for("forked", child);
  }
  unsigned* p;
  MUST(cudaMalloc(&p, kCount * 4));
  fill<<<64, 256>>>(p, kCount, 1234u);
  // After it, a child may only go on without CUDA.
  const pid_t quiet = fork();
  if (quiet == 0) _exit(17);
  wait_for("quiet", quiet);
  const pid_t fails = fork();
  if (fails == 0) {
    void* q = nullptr;
    say("a forked child's cudaMalloc", cudaMalloc(&q, kCount * 4));
    std::fflush(stdout);
    _exit(18);
  }
  wait_for("without CUDA", fails);
  wait_for("spawned", spawn(argv[0], "41"));
  wait_for("crashed", spawn(argv[0], "66"));
  show_digest("parent", p, kCount * 4);
  MUST(cudaFree(p));
  return 0;
}
