// What fills, copies and the words of streams touch: exactly the bytes that they say.
#include "shim/driver/cuda_abi.hpp"
#include "shim/hooks/touches.hpp"

namespace kvcached::hooks {

void Touched::add(const member::Touch& touch) noexcept {
  try {
    all_.push_back(touch);
  } catch (...) {
    everything();
  }
}

void Touched::range(driver::Address at, std::size_t bytes) noexcept {
  const bool reaches = at >= first_ || first_ - at < bytes;
  if (bytes != 0 && at < end_ && reaches) add({at, Bytes(bytes)});
}

void Touched::rows(driver::Address at, std::size_t pitch, std::size_t width,
                   std::size_t rows) noexcept {
  if (width != 0 && rows != 0) range(at, pitch * (rows - 1) + width);
}

void Touched::buffer(driver::Address at) noexcept {
  if (at >= first_ && at < end_) add({at, Bytes()});
}

namespace touches {
namespace {

void fill(const Arguments& call, std::size_t element, Touched& out) noexcept {
  out.range(call.at<driver::Address>(0), element * call.at<std::size_t>(2));
}

void fill_rows(const Arguments& call, std::size_t element, Touched& out) noexcept {
  out.rows(call.at<driver::Address>(0), call.at<std::size_t>(1), element * call.at<std::size_t>(3),
           call.at<std::size_t>(4));
}

bool linear(CUmemorytype type) noexcept {
  return type == CU_MEMORYTYPE_DEVICE || type == CU_MEMORYTYPE_UNIFIED;
}

// The one between peers has fields of the same names.
template <class Copy>
void box_of(const Copy* copy, Touched& out) noexcept {
  if (copy == nullptr || copy->Depth == 0) return;
  const auto side = [&](CUdeviceptr base, std::size_t pitch, std::size_t height, std::size_t x,
                        std::size_t y, std::size_t z) {
    if (pitch == 0) pitch = copy->WidthInBytes;
    if (height == 0) height = copy->Height;
    out.rows(base + (z * height + y) * pitch + x, pitch, copy->WidthInBytes,
             (copy->Depth - 1) * height + copy->Height);
  };
  if (linear(copy->srcMemoryType)) {
    side(copy->srcDevice, copy->srcPitch, copy->srcHeight, copy->srcXInBytes, copy->srcY,
         copy->srcZ);
  }
  if (linear(copy->dstMemoryType)) {
    side(copy->dstDevice, copy->dstPitch, copy->dstHeight, copy->dstXInBytes, copy->dstY,
         copy->dstZ);
  }
}

}  // namespace

void box(const CUDA_MEMCPY3D* copy, Touched& out) noexcept { box_of(copy, out); }

void everything(const Arguments& /*call*/, Touched& out) noexcept { out.everything(); }
void nothing(const Arguments& /*call*/, Touched& /*out*/) noexcept {}

void fill8(const Arguments& call, Touched& out) noexcept { fill(call, 1, out); }
void fill16(const Arguments& call, Touched& out) noexcept { fill(call, 2, out); }
void fill32(const Arguments& call, Touched& out) noexcept { fill(call, 4, out); }
void fill_rows8(const Arguments& call, Touched& out) noexcept { fill_rows(call, 1, out); }
void fill_rows16(const Arguments& call, Touched& out) noexcept { fill_rows(call, 2, out); }
void fill_rows32(const Arguments& call, Touched& out) noexcept { fill_rows(call, 4, out); }

void copy(const Arguments& call, Touched& out) noexcept {
  out.range(call.at<driver::Address>(0), call.at<std::size_t>(2));
  out.range(call.at<driver::Address>(1), call.at<std::size_t>(2));
}

void copy_peer(const Arguments& call, Touched& out) noexcept {
  out.range(call.at<driver::Address>(0), call.at<std::size_t>(4));
  out.range(call.at<driver::Address>(2), call.at<std::size_t>(4));
}

void copy_from_array(const Arguments& call, Touched& out) noexcept {
  out.range(call.at<driver::Address>(0), call.at<std::size_t>(3));
}

void copy_to_array(const Arguments& call, Touched& out) noexcept {
  out.range(call.at<driver::Address>(2), call.at<std::size_t>(3));
}

void copy_2d(const Arguments& call, Touched& out) noexcept {
  const auto* copy = call.at<const CUDA_MEMCPY2D*>(0);
  if (copy == nullptr) return;
  const auto side = [&](CUdeviceptr base, std::size_t pitch, std::size_t x, std::size_t y) {
    if (pitch == 0) pitch = copy->WidthInBytes;
    out.rows(base + y * pitch + x, pitch, copy->WidthInBytes, copy->Height);
  };
  if (linear(copy->srcMemoryType)) {
    side(copy->srcDevice, copy->srcPitch, copy->srcXInBytes, copy->srcY);
  }
  if (linear(copy->dstMemoryType)) {
    side(copy->dstDevice, copy->dstPitch, copy->dstXInBytes, copy->dstY);
  }
}

void copy_3d(const Arguments& call, Touched& out) noexcept {
  box(call.at<const CUDA_MEMCPY3D*>(0), out);
}

void copy_3d_peer(const Arguments& call, Touched& out) noexcept {
  box_of(call.at<const CUDA_MEMCPY3D_PEER*>(0), out);
}

void copy_batch(const Arguments& call, Touched& out) noexcept {
  const auto* to = call.at<const CUdeviceptr*>(0);
  const auto* from = call.at<const CUdeviceptr*>(1);
  const auto* bytes = call.at<const std::size_t*>(2);
  if (to == nullptr || from == nullptr || bytes == nullptr) return;
  for (std::size_t i = 0; i < call.at<std::size_t>(3); ++i) {
    out.range(to[i], bytes[i]);
    out.range(from[i], bytes[i]);
  }
}

void word32(const Arguments& call, Touched& out) noexcept {
  out.range(call.at<driver::Address>(1), 4);
}
void word64(const Arguments& call, Touched& out) noexcept {
  out.range(call.at<driver::Address>(1), 8);
}

}  // namespace touches
}  // namespace kvcached::hooks
