#include <algorithm>
#include <cstdint>

#include "shim/hooks/hooks.hpp"
#include "shim/process.hpp"

namespace kvcached::hooks {

bool has_to_wait(Touches touches, const Arguments& call) noexcept {
  auto* process = Process::existing();
  if (process == nullptr) {
    return false;
  }
  Touched touched(0, ~driver::Address{0});
  touches(call, touched);
  // Where nobody knows, a wait too many is within the meaning of a synchronous call.
  return touched.is_everything() ||
         std::any_of(touched.all().begin(), touched.all().end(), [&](const member::Touch& touch) {
           const auto buffer = process->find(touch.at);
           return buffer && buffer->sync_memops;
         });
}

CUresult call_and_wait(void* function, const Arguments& call,
                       driver::DefaultStream stream) noexcept {
  using Word = std::uint64_t;
  using Function = CUresult (*)(Word, Word, Word, Word, Word, Word);
  const auto word = [&](unsigned index) { return call.at<Word>(index); };
  // Those that the function does not have are not looked at.
  const CUresult result =
      reinterpret_cast<Function>(function)(word(0), word(1), word(2), word(3), word(4), word(5));
  return result != CUDA_SUCCESS ? result : driver::wait_for(stream);
}

}  // namespace kvcached::hooks
