// What a kernel touches: all of each buffer into which a word of its arguments points.
#include <cstring>

#include "shim/driver/cuda_abi.hpp"
#include "shim/driver/symbols.hpp"
#include "shim/hooks/touches.hpp"

namespace kvcached::hooks::touches {
namespace {

// Every word where a pointer can lie, so that those within structures are found.
void words(const void* argument, std::size_t bytes, Touched& out) noexcept {
  const auto* at = static_cast<const unsigned char*>(argument);
  for (std::size_t i = 0; at != nullptr && i + sizeof(driver::Address) <= bytes;
       i += sizeof(driver::Address)) {
    driver::Address word = 0;
    std::memcpy(&word, at + i, sizeof(word));
    out.buffer(word);
  }
}

// False where `info` does not know the kernel, or the kernel has no parameters.
template <class Kernel>
bool described(CUresult (*info)(Kernel, std::size_t, std::size_t*, std::size_t*),
               const void* kernel, void** parameters, Touched& out) noexcept {
  if (info == nullptr) return false;
  auto* const handle = static_cast<Kernel>(const_cast<void*>(kernel));
  std::size_t count = 0;
  std::size_t offset = 0;
  std::size_t bytes = 0;
  while (info(handle, count, &offset, &bytes) == CUDA_SUCCESS) {
    words(parameters[count++], bytes, out);
  }
  return count != 0;
}

// The arguments in one piece.
void packed(void** extra, Touched& out) noexcept {
  const void* buffer = nullptr;
  std::size_t bytes = 0;
  for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
    if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) {
      buffer = extra[1];
    } else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE && extra[1] != nullptr) {
      bytes = *static_cast<const std::size_t*>(extra[1]);
    } else {
      return out.everything();
    }
  }
  words(buffer, bytes, out);
}

}  // namespace

void kernel(const void* function, void** parameters, void** extra, Touched& out) noexcept {
  if (parameters == nullptr) {
    if (extra != nullptr) packed(extra, out);
    return;
  }
  // Asked each time: a handle that was unloaded may be another kernel's now. The runtime library
  // hands CUkernels to calls that take CUfunctions; each of the two questions refuses the other's.
  const driver::Symbols* cuda = driver::symbols();
  if (cuda == nullptr || (!described(cuda->cuFuncGetParamInfo, function, parameters, out) &&
                          !described(cuda->cuKernelGetParamInfo, function, parameters, out))) {
    out.everything();
  }
}

void launch(const Arguments& call, Touched& out) noexcept {
  kernel(call.at<void*>(0), call.at<void**>(9), call.at<void**>(10), out);
}

void launch_cooperative(const Arguments& call, Touched& out) noexcept {
  kernel(call.at<void*>(0), call.at<void**>(9), nullptr, out);
}

void launch_ex(const Arguments& call, Touched& out) noexcept {
  kernel(call.at<void*>(1), call.at<void**>(2), call.at<void**>(3), out);
}

}  // namespace kvcached::hooks::touches
