// What a descriptor stands for: backed when the descriptor is made, since any kernel may get it.
#include "shim/driver/cuda_abi.hpp"
#include "shim/hooks/touches.hpp"

namespace kvcached::hooks::touches {

void tensor_map1(const Arguments& call, Touched& out) noexcept {
  out.buffer(call.at<driver::Address>(1));
}

void tensor_map3(const Arguments& call, Touched& out) noexcept {
  out.buffer(call.at<driver::Address>(3));
}

void texture(const Arguments& call, Touched& out) noexcept {
  const auto* resource = call.at<const CUDA_RESOURCE_DESC*>(1);
  if (resource == nullptr) return;
  if (resource->resType == CU_RESOURCE_TYPE_LINEAR) out.buffer(resource->res.linear.devPtr);
  if (resource->resType == CU_RESOURCE_TYPE_PITCH2D) out.buffer(resource->res.pitch2D.devPtr);
}

}  // namespace kvcached::hooks::touches
