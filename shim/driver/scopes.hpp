// What a call of ours needs of the calling thread for its length, and puts back.
#pragma once

#include "shim/driver/cuda_abi.hpp"
#include "shim/driver/driver.hpp"
#include "shim/driver/symbols.hpp"

namespace kvcached::driver {

// In a thread that is not in relaxed mode many harmless calls fail, and ruin the capture, while
// another thread captures. False where the driver refused: then such a call must wait.
class Relaxed {
 public:
  explicit Relaxed(const Symbols& cuda) noexcept
      : cuda_(cuda), result_(cuda.cuThreadExchangeStreamCaptureMode(&mode_)) {}
  ~Relaxed() {
    // The mode is the program's: one refusal must not leave it ours.
    for (int i = 0; *this && i < kTries; ++i) {
      if (cuda_.cuThreadExchangeStreamCaptureMode(&mode_) == CUDA_SUCCESS) break;
    }
  }
  Relaxed(const Relaxed&) = delete;
  Relaxed& operator=(const Relaxed&) = delete;
  explicit operator bool() const noexcept { return result_ == CUDA_SUCCESS; }
  CUresult result() const noexcept { return result_; }

 private:
  static constexpr int kTries = 32;

  const Symbols& cuda_;
  CUstreamCaptureMode mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
  CUresult result_;
};

// Makes a context current, and the caller's again.
class Within {
 public:
  Within(const Symbols& cuda, ContextId context) noexcept : cuda_(cuda) {
    auto* wanted = static_cast<CUcontext>(context.context);
    CUcontext now = nullptr;
    if (cuda_.cuCtxGetCurrent(&now) == CUDA_SUCCESS && now == wanted) {
      return;
    }
    result_ = cuda_.cuCtxPushCurrent_v2(wanted);
    pushed_ = result_ == CUDA_SUCCESS;
  }
  ~Within() {
    CUcontext popped = nullptr;
    if (pushed_) cuda_.cuCtxPopCurrent_v2(&popped);
  }
  Within(const Within&) = delete;
  Within& operator=(const Within&) = delete;
  CUresult result() const noexcept { return result_; }

 private:
  const Symbols& cuda_;
  CUresult result_ = CUDA_SUCCESS;
  bool pushed_ = false;
};

}  // namespace kvcached::driver
