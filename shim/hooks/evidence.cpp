#include "shim/hooks/hooks.hpp"
#include "shim/process.hpp"

namespace kvcached::hooks {

bool work_begins() noexcept {
  auto* process = Process::existing();
  return process == nullptr || process->back_unclaimed();
}

}  // namespace kvcached::hooks
