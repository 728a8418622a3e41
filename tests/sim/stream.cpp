#include "tests/sim/stream.hpp"

#include <algorithm>
#include <csignal>
#include <shared_mutex>
#include <thread>
#include <unordered_map>
#include <utility>

#include "tests/sim/call.hpp"
#include "tests/sim/context.hpp"
#include "tests/sim/trap.hpp"

namespace sim {
namespace {

std::atomic<std::uint64_t> last_id{2};
thread_local bool thread_default = false;

struct Handles {
  std::shared_mutex mutex;
  std::unordered_map<CUstream, std::shared_ptr<Stream>> streams;
};

Handles& handles() {
  static Handles& all = *new Handles;
  return all;
}

}  // namespace

bool Mark::reached() const { return stream->reached(ticket); }
void Mark::wait() const { stream->wait(ticket); }

bool all_reached(const std::vector<Mark>& marks) {
  return std::all_of(marks.begin(), marks.end(), [](const Mark& mark) { return mark.reached(); });
}

void wait_for_all(const std::vector<Mark>& marks) {
  for (const Mark& mark : marks) mark.wait();
}

Stream::Stream(Context& context, Kind kind, int priority)
    : context_(context), kind_(kind), priority_(priority), id_(++last_id) {}

Mark Stream::push(Work work, std::vector<Mark> after) {
  after.erase(std::remove_if(after.begin(), after.end(), [](const Mark& m) { return m.reached(); }),
              after.end());
  std::unique_lock lock(mutex_);
  if (work.kind == Work::Kind::kMark && after.empty() && issued_ == done_) {
    // Nothing to wait for: spare the thread's waking up.
    if (work.run) work.run();
    return {shared_from_this(), issued_};
  }
  queue_.push_back({std::move(work), std::move(after)});
  const std::uint64_t ticket = ++issued_;
  if (!thread_.joinable()) start_thread();
  lock.unlock();
  more_.notify_one();
  return {shared_from_this(), ticket};
}

Mark Stream::tail() {
  const std::lock_guard lock(mutex_);
  return {shared_from_this(), issued_};
}

bool Stream::idle() {
  const std::lock_guard lock(mutex_);
  return issued_ == done_;
}

void Stream::wait(std::uint64_t ticket) {
  if (reached(ticket)) return;
  std::unique_lock lock(mutex_);
  ++waiting_;
  progress_.wait(lock, [&] { return reached(ticket); });
  --waiting_;
}

Stream::~Stream() {
  if (thread_.joinable()) thread_.detach();
}

void Stream::close() {
  std::thread idle;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    if (issued_ == done_) idle = std::move(thread_);
  }
  more_.notify_one();
  // A thread that is about to end should have ended: a program that ends now is looked over.
  if (idle.joinable()) idle.join();
}

bool Stream::closed() {
  const std::lock_guard lock(mutex_);
  return closed_;
}

void Stream::start_thread() {
  // The program's signals are for its own threads; faults of kernels are for this one.
  sigset_t blocked;
  sigset_t before;
  sigfillset(&blocked);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigdelset(&blocked, fault);
  pthread_sigmask(SIG_SETMASK, &blocked, &before);
  thread_ = std::thread([self = shared_from_this()] { self->serve(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Stream::serve() {
  std::unique_lock lock(mutex_);
  while (true) {
    more_.wait(lock, [&] { return closed_ || !queue_.empty(); });
    if (queue_.empty()) return;
    Item item = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    wait_for_all(item.after);
    perform(context_, item.work);
    item = {};  // what it holds goes before anybody sees it done
    lock.lock();
    ++done_;
    if (waiting_ > 0) progress_.notify_all();
  }
}

void perform(Context& context, const Work& work) {
  switch (work.kind) {
    case Work::Kind::kMark:
    case Work::Kind::kAlways:
      if (work.run) work.run();
      return;
    case Work::Kind::kHost: {
      const InCallback inside;
      if (work.report) {
        work.report(context.error());
      } else if (context.error() == CUDA_SUCCESS) {
        work.run();
      }
      return;
    }
    case Work::Kind::kKernel:
    case Work::Kind::kMemory:
    case Work::Kind::kWait:
      if (context.error() != CUDA_SUCCESS) return;
      if (const CUresult result = run_trapped(work.run); result != CUDA_SUCCESS) {
        context.fail(result);
      }
      return;
  }
}

CUstream handle_of(Stream* stream) { return reinterpret_cast<CUstream>(stream); }

void publish_stream(const std::shared_ptr<Stream>& stream) {
  const std::unique_lock lock(handles().mutex);
  handles().streams[handle_of(stream.get())] = stream;
}

std::shared_ptr<Stream> withdraw_stream(CUstream handle) {
  const std::unique_lock lock(handles().mutex);
  const auto found = handles().streams.find(handle);
  if (found == handles().streams.end()) return nullptr;
  std::shared_ptr<Stream> stream = std::move(found->second);
  handles().streams.erase(found);
  return stream;
}

CUresult resolve_stream(CUstream handle, Context& context, std::shared_ptr<Stream>& out) {
  if (handle == nullptr) handle = thread_default ? CU_STREAM_PER_THREAD : CU_STREAM_LEGACY;
  if (handle == CU_STREAM_LEGACY) {
    out = context.legacy_stream();
    return CUDA_SUCCESS;
  }
  if (handle == CU_STREAM_PER_THREAD) {
    out = context.thread_stream();
    return CUDA_SUCCESS;
  }
  const std::shared_lock lock(handles().mutex);
  const auto found = handles().streams.find(handle);
  if (found == handles().streams.end()) return CUDA_ERROR_INVALID_HANDLE;
  out = found->second;
  return out->context().error();
}

ThreadDefault::ThreadDefault() : before_(std::exchange(thread_default, true)) {}
ThreadDefault::~ThreadDefault() { thread_default = before_; }

}  // namespace sim
