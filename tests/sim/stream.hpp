#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/sim/cuda_api.hpp"

namespace sim {

class Context;
class Stream;
struct Capture;
struct Node;

/// One thing that a stream does.
struct Work {
  enum class Kind {
    kKernel,  // touches device memory: a bad address loses the context
    kMemory,  // the same: copies and fills
    kHost,    // the program's own function
    kMark,    // an event's time, or waiting for another stream: quick, never skipped
    kWait,    // for a value in memory
    kAlways,  // the driver's own doing: never skipped, though it takes its time
  };
  Kind kind = Kind::kMark;
  std::function<void()> run;                       // may be empty
  std::function<void(CUresult)> report = nullptr;  // kHost: told also of a lost context
};

/// A point in a stream: everything up to its n-th piece of work.
struct Mark {
  std::shared_ptr<Stream> stream;
  std::uint64_t ticket;

  [[nodiscard]] bool reached() const;
  void wait() const;
};

[[nodiscard]] bool all_reached(const std::vector<Mark>& marks);
void wait_for_all(const std::vector<Mark>& marks);

/// A queue of work, done in order by a thread of its own that starts with the first piece. Any
/// thread may call.
class Stream : public std::enable_shared_from_this<Stream> {
 public:
  enum class Kind { kLegacy, kThread, kBlocking, kNonBlocking };

  Stream(Context& context, Kind kind, int priority);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  [[nodiscard]] Context& context() const { return context_; }
  [[nodiscard]] Kind kind() const { return kind_; }
  [[nodiscard]] int priority() const { return priority_; }
  [[nodiscard]] std::uint64_t id() const { return id_; }
  /// Whether it and the legacy stream wait for each other.
  [[nodiscard]] bool blocking() const { return kind_ == Kind::kThread || kind_ == Kind::kBlocking; }

  /// Queues work behind `after`, which must have been submitted already.
  Mark push(Work work, std::vector<Mark> after);
  [[nodiscard]] Mark tail();
  [[nodiscard]] bool idle();

  [[nodiscard]] bool reached(std::uint64_t ticket) const { return done_ >= ticket; }
  void wait(std::uint64_t ticket);

  /// Its thread ends when all work is done, at once if it is. Only marks may still be pushed,
  /// waiting for nothing.
  void close();
  [[nodiscard]] bool closed();

  // The capture this stream takes part in and the nodes its next one follows; guarded by the lock
  // in capture.cpp.
  std::shared_ptr<Capture> capture;
  std::vector<Node*> capture_tail;

 private:
  struct Item {
    Work work;
    std::vector<Mark> after;
  };
  void start_thread();
  void serve();

  Context& context_;
  const Kind kind_;
  const int priority_;
  const std::uint64_t id_;
  std::mutex mutex_;
  std::condition_variable more_;
  std::condition_variable progress_;
  std::deque<Item> queue_;
  std::uint64_t issued_ = 0;
  std::atomic<std::uint64_t> done_{0};
  int waiting_ = 0;
  std::thread thread_;
  bool closed_ = false;
};

/// Does one piece of work on this thread, unless the context is lost.
void perform(Context& context, const Work& work);

/// The stream that a handle means for this thread.
CUresult resolve_stream(CUstream handle, Context& context, std::shared_ptr<Stream>& out);
CUstream handle_of(Stream* stream);
void publish_stream(const std::shared_ptr<Stream>& stream);
std::shared_ptr<Stream> withdraw_stream(CUstream handle);  // nullptr: not one that was created

/// While it lives, this thread's default stream is its own one: the _ptsz and _ptds calls.
class ThreadDefault {
 public:
  ThreadDefault();
  ~ThreadDefault();
  ThreadDefault(const ThreadDefault&) = delete;
  ThreadDefault& operator=(const ThreadDefault&) = delete;

 private:
  bool before_;
};

}  // namespace sim
