#include "shim/hooks/hooks.hpp"
#include "shim/process.hpp"

namespace kvcached::hooks {

bool work_begins(bool now, Touches touches, const Arguments& call) noexcept {
  auto* process = Process::existing();
  if (process == nullptr) {
    return true;
  }
  if (!process->arguments_name_memory()) {
    return !now || process->back_unclaimed();
  }
  const auto [first, end] = process->unclaimed_range();
  Touched touched(first, end);
  touches(call, touched);
  if (touched.is_everything()) {
    return process->back_unclaimed();
  }
  return touched.all().empty() || process->back_touched(touched.all());
}

}  // namespace kvcached::hooks
