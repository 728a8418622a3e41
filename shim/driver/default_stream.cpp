#include "shim/driver/default_stream.hpp"

#include "shim/driver/scopes.hpp"
#include "shim/driver/symbols.hpp"

namespace kvcached::driver {

CUresult wait_for(DefaultStream stream) noexcept {
  const Symbols* cuda = symbols();
  if (cuda == nullptr) return CUDA_SUCCESS;
  auto* const handle = stream == DefaultStream::legacy ? CU_STREAM_LEGACY : CU_STREAM_PER_THREAD;
  // A capture on a stream that has nothing to do with this one forbids the wait as well, and would
  // be ruined by it, but not in a relaxed thread.
  const Relaxed relaxed(*cuda);
  if (!relaxed) return relaxed.result();
  // The question ruins nothing. A legacy stream that a capture forbids would have refused the work
  // that we are to wait for, and a thread's own stream has made a node of it. A capture that begins
  // right behind the question is another thread's, and had it begun before that work, that would
  // have ruined it: a program that does not keep the two apart is wrong without us.
  auto status = CU_STREAM_CAPTURE_STATUS_NONE;
  const CUresult asked = cuda->cuStreamIsCapturing(handle, &status);
  if (asked == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT) return CUDA_SUCCESS;
  if (asked != CUDA_SUCCESS) return asked;
  return status == CU_STREAM_CAPTURE_STATUS_NONE ? cuda->cuStreamSynchronize(handle) : CUDA_SUCCESS;
}

CUresult wait_for(DefaultStream stream, ContextId context) noexcept {
  const Symbols* cuda = symbols();
  if (cuda == nullptr) return CUDA_SUCCESS;
  const Within within(*cuda, context);
  return within.result() != CUDA_SUCCESS ? within.result() : wait_for(stream);
}

}  // namespace kvcached::driver
