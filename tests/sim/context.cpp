#include "tests/sim/context.hpp"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "tests/sim/call.hpp"
#include "tests/sim/capture.hpp"
#include "tests/sim/settings.hpp"
#include "tests/sim/space.hpp"

namespace sim {
namespace {

std::atomic<std::uint64_t> last_context{0};
std::atomic<std::uint64_t> last_thread{0};

constexpr int kDeepest = 64;

/// Plain data, so that it outlives every other thread-local object.
struct Stack {
  Context* items[kDeepest];
  int depth;
};
thread_local Stack stack{};

struct Created {
  std::mutex mutex;
  std::unordered_map<CUcontext, std::unique_ptr<Context>> contexts;
};

Created& created() {
  static Created& all = *new Created;
  return all;
}

}  // namespace

Context::Context(Device& device, bool primary)
    : device_(device), primary_(primary), id_(++last_context) {}

CUresult Context::start() {
  const std::lock_guard lock(mutex_);
  if (alive_) return CUDA_SUCCESS;
  if (settings().context_memory != 0) {
    overhead_ = device_.memory->take(settings().context_memory);
    if (overhead_ == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  }
  error_ = CUDA_SUCCESS;
  legacy_ = std::make_shared<Stream>(*this, Stream::Kind::kLegacy, 0);
  streams_ = {legacy_};
  alive_ = true;
  return CUDA_SUCCESS;
}

void Context::stop() {
  if (!alive_.exchange(false)) return;
  for (const std::shared_ptr<Stream>& stream : streams()) abandon_capture(*stream);
  wait_for_all(tails());
  Space::get().free_all_of(*this);
  const std::lock_guard lock(mutex_);
  for (const std::shared_ptr<Stream>& stream : streams_) {
    withdraw_stream(handle_of(stream.get()));
    stream->close();
  }
  streams_.clear();
  thread_streams_.clear();
  overhead_ = nullptr;
}

void Context::fail(CUresult error) {
  CUresult well = CUDA_SUCCESS;
  error_.compare_exchange_strong(well, error);
}

std::shared_ptr<Stream> Context::legacy_stream() {
  const std::lock_guard lock(mutex_);
  return legacy_;
}

std::shared_ptr<Stream> Context::thread_stream() {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<Stream>& own = thread_streams_[thread_number()];
  if (own == nullptr) {
    own = std::make_shared<Stream>(*this, Stream::Kind::kThread, 0);
    streams_.push_back(own);
  }
  return own;
}

std::shared_ptr<Stream> Context::add_stream(Stream::Kind kind, int priority) {
  auto stream = std::make_shared<Stream>(*this, kind, priority);
  const std::lock_guard lock(mutex_);
  forget_closed_streams();
  streams_.push_back(stream);
  return stream;
}

void Context::forget_thread(std::uint64_t thread) {
  const std::lock_guard lock(mutex_);
  const auto found = thread_streams_.find(thread);
  if (found == thread_streams_.end()) return;
  found->second->close();
  thread_streams_.erase(found);
}

void Context::forget_closed_streams() {
  streams_.erase(
      std::remove_if(streams_.begin(), streams_.end(),
                     [](const auto& stream) { return stream->closed() && stream->idle(); }),
      streams_.end());
}

std::vector<std::shared_ptr<Stream>> Context::streams() {
  const std::lock_guard lock(mutex_);
  forget_closed_streams();
  return streams_;
}

void Context::collect_before(const Stream& stream, std::vector<Mark>& out) {
  if (stream.kind() == Stream::Kind::kLegacy) {
    for (const std::shared_ptr<Stream>& other : streams_) {
      if (other->blocking() && !other->idle()) out.push_back(other->tail());
    }
  } else if (stream.blocking() && !legacy_->idle()) {
    out.push_back(legacy_->tail());
  }
}

Mark Context::submit(Stream& stream, Work work, std::vector<Mark> after) {
  const std::lock_guard lock(mutex_);
  collect_before(stream, after);
  return stream.push(std::move(work), std::move(after));
}

std::vector<Mark> Context::tails(Stream& stream) {
  const std::lock_guard lock(mutex_);
  std::vector<Mark> out;
  collect_before(stream, out);
  out.push_back(stream.tail());
  return out;
}

std::vector<Mark> Context::tails() {
  const std::lock_guard lock(mutex_);
  std::vector<Mark> out;
  for (const std::shared_ptr<Stream>& stream : streams_) out.push_back(stream->tail());
  return out;
}

Context* make_context(Device& device) {
  auto context = std::make_unique<Context>(device, false);
  Context* const raw = context.get();
  const std::lock_guard lock(created().mutex);
  created().contexts[handle_of(raw)] = std::move(context);
  return raw;
}

Context* find_context(CUcontext handle) {
  for (int ordinal = 0; ordinal < device_count(); ++ordinal) {
    Context* const primary = find_device(ordinal)->primary.get();
    if (handle_of(primary) == handle) return primary;
  }
  const std::lock_guard lock(created().mutex);
  const auto found = created().contexts.find(handle);
  return found == created().contexts.end() ? nullptr : found->second.get();
}

Context* current_context() { return stack.depth == 0 ? nullptr : stack.items[stack.depth - 1]; }

void push_context(Context* context) {
  if (stack.depth < kDeepest) stack.items[stack.depth++] = context;
}

Context* pop_context() { return stack.depth == 0 ? nullptr : stack.items[--stack.depth]; }

void replace_context(Context* context) {
  pop_context();
  if (context != nullptr) push_context(context);
}

CUresult usable_context(Context*& out) {
  out = current_context();
  if (out == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (!out->alive()) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  return out->error();
}

std::uint64_t thread_number() {
  /// Ends the streams of a thread with it.
  struct Number {
    const std::uint64_t value = ++last_thread;
    ~Number() {
      if (in_forked_child()) return;
      for (int ordinal = 0; ordinal < device_count(); ++ordinal) {
        find_device(ordinal)->primary->forget_thread(value);
      }
      const std::lock_guard lock(created().mutex);
      for (const auto& [unused, context] : created().contexts) context->forget_thread(value);
    }
  };
  thread_local const Number number;
  return number.value;
}

}  // namespace sim
