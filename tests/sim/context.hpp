#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/sim/cuda_api.hpp"
#include "tests/sim/device.hpp"
#include "tests/sim/stream.hpp"

namespace sim {

/// A context. It stays in memory when destroyed, so that a stale handle is recognised. Any thread.
class Context {
 public:
  Context(Device& device, bool primary);

  [[nodiscard]] Device& device() const { return device_; }
  [[nodiscard]] bool primary() const { return primary_; }
  [[nodiscard]] std::uint64_t id() const { return id_; }
  [[nodiscard]] bool alive() const { return alive_; }
  [[nodiscard]] unsigned flags() const { return flags_; }
  void set_flags(unsigned flags) { flags_ = flags; }

  /// Takes the context's own memory. Legal on a context that is not alive.
  CUresult start();
  /// Waits for all work and frees what the context owns.
  void stop();

  /// The error that every call on this context gives from now on.
  [[nodiscard]] CUresult error() const { return error_; }
  void fail(CUresult error);

  std::shared_ptr<Stream> legacy_stream();
  std::shared_ptr<Stream> thread_stream();
  void forget_thread(std::uint64_t thread);
  std::shared_ptr<Stream> add_stream(Stream::Kind kind, int priority);
  /// All streams, also closed ones that still have work.
  std::vector<std::shared_ptr<Stream>> streams();

  /// Queues work after what the rules of the legacy stream put before it.
  Mark submit(Stream& stream, Work work, std::vector<Mark> after);
  /// Everything submitted to this stream, or for the legacy one to all that it waits for.
  std::vector<Mark> tails(Stream& stream);
  /// Everything submitted to any stream.
  std::vector<Mark> tails();

  /// The number of retains of a primary context; guarded by whoever counts.
  int retained = 0;

 private:
  void forget_closed_streams();
  void collect_before(const Stream& stream, std::vector<Mark>& out);

  Device& device_;
  const bool primary_;
  const std::uint64_t id_;
  std::atomic<bool> alive_{false};
  std::atomic<unsigned> flags_{0};
  std::atomic<CUresult> error_{CUDA_SUCCESS};
  std::mutex mutex_;  // before any stream's
  std::shared_ptr<Extent> overhead_;
  std::shared_ptr<Stream> legacy_;
  std::map<std::uint64_t, std::shared_ptr<Stream>> thread_streams_;  // by thread
  std::vector<std::shared_ptr<Stream>> streams_;                     // all of them
};

inline CUcontext handle_of(Context* context) { return reinterpret_cast<CUcontext>(context); }

/// A new context that cuCtxCreate made, or nullptr for a handle that never was one.
Context* make_context(Device& device);
Context* find_context(CUcontext handle);

/// This thread's current context, nullptr without one; it may be destroyed or lost.
Context* current_context();
void push_context(Context* context);
Context* pop_context();
void replace_context(Context* context);  // nullptr: pops

/// The current context, or the reason why no work can be done on it.
CUresult usable_context(Context*& out);

/// A number of this thread that is never used again.
std::uint64_t thread_number();

}  // namespace sim
