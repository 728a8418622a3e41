#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/sim/capture.hpp"
#include "tests/sim/stream.hpp"

namespace sim {

/// One recording of an event: done when all its marks are reached.
struct Record {
  std::vector<Mark> marks;
  std::shared_ptr<std::atomic<std::int64_t>> time;  // of the last mark, ns
};

struct Event {
  unsigned flags = 0;
  Context* context = nullptr;
  std::mutex mutex;
  Record record;          // no marks: never recorded
  CapturedMark captured;  // no capture: last recorded outside
};

/// nullptr for a handle that is none.
std::shared_ptr<Event> find_event(CUevent handle);
std::size_t count_events();

}  // namespace sim
