#include "tests/sim/trap.hpp"

#include <unistd.h>

#include <csetjmp>
#include <csignal>

namespace sim {
namespace {

// Plain thread-local storage, allocated with the thread: a signal handler must not allocate.
__attribute__((tls_model("initial-exec"))) thread_local sigjmp_buf* place = nullptr;

struct sigaction previous_segv;
struct sigaction previous_bus;

void hand_on(int signal, siginfo_t* info, void* context) {
  const struct sigaction& previous = signal == SIGBUS ? previous_bus : previous_segv;
  if ((previous.sa_flags & SA_SIGINFO) != 0) {
    previous.sa_sigaction(signal, info, context);
  } else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN) {
    ::signal(signal, SIG_DFL);  // the faulting instruction runs again, and this time it kills
  } else {
    previous.sa_handler(signal);
  }
}

void on_fault(int signal, siginfo_t* info, void* context) {
  if (place == nullptr) {
    hand_on(signal, info, context);
    return;
  }
  if (signal == SIGBUS) {
    constexpr char kWhy[] = "libcuda (simulated): the folder of the GPU's memory is full\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kWhy, sizeof kWhy - 1);
  }
  siglongjmp(*place, 1);
}

}  // namespace

void install_trap() {
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  // Not deferred, since the handler leaves by a jump that restores no mask.
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGSEGV, &action, &previous_segv);
  sigaction(SIGBUS, &action, &previous_bus);
}

CUresult run_trapped(const std::function<void()>& body) {
  sigjmp_buf here;
  if (sigsetjmp(here, 0) != 0) {
    place = nullptr;
    return CUDA_ERROR_ILLEGAL_ADDRESS;
  }
  place = &here;
  body();
  place = nullptr;
  return CUDA_SUCCESS;
}

}  // namespace sim
