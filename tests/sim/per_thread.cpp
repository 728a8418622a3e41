// The _ptsz and _ptds functions: the plain ones, with the thread's own stream as the default.
#include "tests/sim/cuda_api.hpp"
#include "tests/sim/stream.hpp"

namespace sim {
namespace {

template <std::size_t Index, class Function>
struct ArgumentOf;
template <std::size_t Index, class First, class... Rest>
struct ArgumentOf<Index, CUresult(First, Rest...)> : ArgumentOf<Index - 1, CUresult(Rest...)> {};
template <class First, class... Rest>
struct ArgumentOf<0, CUresult(First, Rest...)> {
  using Type = First;
};

template <std::size_t Index, class Function>
using Argument = typename ArgumentOf<Index, Function>::Type;

}  // namespace
}  // namespace sim

#define SIM_ARG(n, name) sim::Argument<n, decltype(name)> a##n
#define SIM_ARGS_1(name) SIM_ARG(0, name)
#define SIM_ARGS_2(name) SIM_ARGS_1(name), SIM_ARG(1, name)
#define SIM_ARGS_3(name) SIM_ARGS_2(name), SIM_ARG(2, name)
#define SIM_ARGS_4(name) SIM_ARGS_3(name), SIM_ARG(3, name)
#define SIM_ARGS_5(name) SIM_ARGS_4(name), SIM_ARG(4, name)
#define SIM_ARGS_6(name) SIM_ARGS_5(name), SIM_ARG(5, name)
#define SIM_ARGS_7(name) SIM_ARGS_6(name), SIM_ARG(6, name)
#define SIM_ARGS_10(name) SIM_ARGS_7(name), SIM_ARG(7, name), SIM_ARG(8, name), SIM_ARG(9, name)
#define SIM_ARGS_11(name) SIM_ARGS_10(name), SIM_ARG(10, name)
#define SIM_PASS_1 a0
#define SIM_PASS_2 SIM_PASS_1, a1
#define SIM_PASS_3 SIM_PASS_2, a2
#define SIM_PASS_4 SIM_PASS_3, a3
#define SIM_PASS_5 SIM_PASS_4, a4
#define SIM_PASS_6 SIM_PASS_5, a5
#define SIM_PASS_7 SIM_PASS_6, a6
#define SIM_PASS_10 SIM_PASS_7, a7, a8, a9
#define SIM_PASS_11 SIM_PASS_10, a10
#define SIM_TWIN(count, name, suffix)             \
  CUresult name##suffix(SIM_ARGS_##count(name)) { \
    const sim::ThreadDefault own;                 \
    return name(SIM_PASS_##count);                \
  }

SIM_TWIN(3, cuMemcpy, _ptds)
SIM_TWIN(3, cuMemcpyHtoD_v2, _ptds)
SIM_TWIN(3, cuMemcpyDtoH_v2, _ptds)
SIM_TWIN(3, cuMemcpyDtoD_v2, _ptds)
SIM_TWIN(5, cuMemcpyPeer, _ptds)
SIM_TWIN(1, cuMemcpy2D_v2, _ptds)
SIM_TWIN(1, cuMemcpy2DUnaligned_v2, _ptds)
SIM_TWIN(4, cuMemcpyAsync, _ptsz)
SIM_TWIN(4, cuMemcpyHtoDAsync_v2, _ptsz)
SIM_TWIN(4, cuMemcpyDtoHAsync_v2, _ptsz)
SIM_TWIN(4, cuMemcpyDtoDAsync_v2, _ptsz)
SIM_TWIN(6, cuMemcpyPeerAsync, _ptsz)
SIM_TWIN(2, cuMemcpy2DAsync_v2, _ptsz)
SIM_TWIN(3, cuMemsetD8_v2, _ptds)
SIM_TWIN(3, cuMemsetD16_v2, _ptds)
SIM_TWIN(3, cuMemsetD32_v2, _ptds)
SIM_TWIN(5, cuMemsetD2D8_v2, _ptds)
SIM_TWIN(5, cuMemsetD2D16_v2, _ptds)
SIM_TWIN(5, cuMemsetD2D32_v2, _ptds)
SIM_TWIN(4, cuMemsetD8Async, _ptsz)
SIM_TWIN(4, cuMemsetD16Async, _ptsz)
SIM_TWIN(4, cuMemsetD32Async, _ptsz)
SIM_TWIN(6, cuMemsetD2D8Async, _ptsz)
SIM_TWIN(6, cuMemsetD2D16Async, _ptsz)
SIM_TWIN(6, cuMemsetD2D32Async, _ptsz)
SIM_TWIN(3, cuMemAllocAsync, _ptsz)
SIM_TWIN(4, cuMemAllocFromPoolAsync, _ptsz)
SIM_TWIN(2, cuMemFreeAsync, _ptsz)
SIM_TWIN(2, cuStreamGetPriority, _ptsz)
SIM_TWIN(2, cuStreamGetId, _ptsz)
SIM_TWIN(2, cuStreamGetFlags, _ptsz)
SIM_TWIN(2, cuStreamGetDevice, _ptsz)
SIM_TWIN(2, cuStreamGetCtx, _ptsz)
SIM_TWIN(3, cuStreamGetCtx_v2, _ptsz)
SIM_TWIN(3, cuStreamWaitEvent, _ptsz)
SIM_TWIN(4, cuStreamAddCallback, _ptsz)
SIM_TWIN(1, cuStreamQuery, _ptsz)
SIM_TWIN(1, cuStreamSynchronize, _ptsz)
SIM_TWIN(1, cuStreamBeginCapture, _ptsz)
SIM_TWIN(2, cuStreamBeginCapture_v2, _ptsz)
SIM_TWIN(6, cuStreamBeginCaptureToGraph, _ptsz)
SIM_TWIN(2, cuStreamEndCapture, _ptsz)
SIM_TWIN(2, cuStreamIsCapturing, _ptsz)
SIM_TWIN(3, cuStreamGetCaptureInfo, _ptsz)
SIM_TWIN(6, cuStreamGetCaptureInfo_v2, _ptsz)
SIM_TWIN(7, cuStreamGetCaptureInfo_v3, _ptsz)
SIM_TWIN(4, cuStreamWaitValue32, _ptsz)
SIM_TWIN(4, cuStreamWaitValue32_v2, _ptsz)
SIM_TWIN(4, cuStreamWaitValue64, _ptsz)
SIM_TWIN(4, cuStreamWaitValue64_v2, _ptsz)
SIM_TWIN(4, cuStreamWriteValue32, _ptsz)
SIM_TWIN(4, cuStreamWriteValue32_v2, _ptsz)
SIM_TWIN(4, cuStreamWriteValue64, _ptsz)
SIM_TWIN(4, cuStreamWriteValue64_v2, _ptsz)
SIM_TWIN(2, cuEventRecord, _ptsz)
SIM_TWIN(3, cuEventRecordWithFlags, _ptsz)
SIM_TWIN(11, cuLaunchKernel, _ptsz)
SIM_TWIN(10, cuLaunchCooperativeKernel, _ptsz)
SIM_TWIN(4, cuLaunchKernelEx, _ptsz)
SIM_TWIN(3, cuLaunchHostFunc, _ptsz)
SIM_TWIN(3, cuGraphInstantiateWithParams, _ptsz)
SIM_TWIN(2, cuGraphUpload, _ptsz)
SIM_TWIN(2, cuGraphLaunch, _ptsz)
