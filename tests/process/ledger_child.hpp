// Child processes for the ledger's tests: forked without exec, steered by signals and one pipe.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <functional>
#include <utility>

#include "policy/ledger/test_points.hpp"
#include "tests/unit/policy/pool_folder.hpp"

namespace kvcached::ledger {

class Child {
 public:
  // `body` runs in the child; its result is the exit status.
  explicit Child(const std::function<int(Child&)>& body) {
    EXPECT_EQ(::pipe2(pipe_.data(), O_CLOEXEC), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(pipe_[0]);
      ::_exit(body(*this));
    }
    ::close(std::exchange(pipe_[1], -1));
  }
  ~Child() {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    wait();
    ::close(pipe_[0]);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }

  // In the child: tells the parent a number.
  void say(std::int64_t word) const {
    if (::write(pipe_[1], &word, sizeof word) != sizeof word) ::_exit(98);
  }
  // In the parent: waits for the next number; -1 when the child (and its children) ended.
  std::int64_t hear() const {
    std::int64_t word = -1;
    return ::read(pipe_[0], &word, sizeof word) == sizeof word ? word : -1;
  }

  void signal(int number) const { ::kill(pid_, number); }
  // Until the child has stopped itself.
  void wait_stopped() const {
    int status = 0;
    ASSERT_EQ(::waitpid(pid_, &status, WUNTRACED), pid_);
    ASSERT_TRUE(WIFSTOPPED(status));
  }
  // The status as waitpid gives it.
  int wait() {
    int status = -1;
    if (pid_ > 0) ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return status;
  }
  void kill_and_wait() {
    signal(SIGKILL);
    wait();
  }

 private:
  std::array<int, 2> pipe_{-1, -1};
  pid_t pid_ = -1;
};

// A number that forked processes share.
class SharedNumber {
 public:
  SharedNumber()
      : number_(static_cast<std::atomic<std::int64_t>*>(
            ::mmap(nullptr, sizeof(std::atomic<std::int64_t>), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
  ~SharedNumber() { ::munmap(number_, sizeof *number_); }
  SharedNumber(const SharedNumber&) = delete;
  SharedNumber& operator=(const SharedNumber&) = delete;
  std::atomic<std::int64_t>& operator*() const { return *number_; }

 private:
  std::atomic<std::int64_t>* number_;
};

// At the named test point, the calling process sends itself the signal; later passes go through.
inline const char* signal_point = nullptr;
inline int signal_number = 0;
inline void signal_at(const char* point, int number) {
  signal_point = point;
  signal_number = number;
  test_point_hook = [](const char* name) {
    if (signal_point == nullptr || std::strcmp(name, signal_point) != 0) return;
    signal_point = nullptr;
    ::raise(signal_number);
  };
}

// What the tests of all files share: the books must add up and cover every floor.
inline void expect_sound(const Snapshot& books) {
  EXPECT_EQ(books.charged + books.limbo + books.free, books.pool - books.shortfall);
  Pages members;
  for (const MemberState& member : books.members) members += member.charged;
  EXPECT_EQ(members, books.charged + books.limbo);
  Pages floors;
  for (const TenantState& tenant : books.tenants) {
    floors += tenant.limits.min.minus_clamped(tenant.charged);
    EXPECT_LE(tenant.charged, tenant.limits.max);
  }
  EXPECT_GE(books.free, floors);
}

}  // namespace kvcached::ledger
