// What the operations of the cache floor answer.
#pragma once

#include <cstdint>

#include "shim/driver/driver.hpp"

namespace kvcached::cache {

enum class Result : std::uint8_t {
  ok,
  shortage,  // the pool refused, or the GPU is full; what was there before is unchanged
  not_now,   // legal later: a stream capture is open
  invalid,   // an argument is wrong; nothing was changed
  lost,      // the context, the buffer or the cache is gone
  failed,    // the driver refused; what was there before is unchanged or counted as lost
};

constexpr Result result_of(driver::Status status) {
  switch (status) {
    case driver::Status::ok:
      return Result::ok;
    case driver::Status::out_of_memory:
      return Result::shortage;
    case driver::Status::not_now:
      return Result::not_now;
    case driver::Status::lost:
      return Result::lost;
    case driver::Status::unsupported:
    case driver::Status::failed:
      break;
  }
  return Result::failed;
}

}  // namespace kvcached::cache
