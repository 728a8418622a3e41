#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/sim/cuda_api.hpp"

namespace sim {

constexpr std::size_t kPageBytes = std::size_t{2} << 20U;

/// Consecutive pages of the file.
struct PageRun {
  std::uint32_t first;
  std::uint32_t count;
};

struct Book;
class PhysicalMemory;

/// Pages that belong to this process, in ascending order; they return with the last owner. An
/// extent opened from another process (IPC) only looks at pages that stay the other's.
class Extent {
 public:
  Extent(PhysicalMemory& memory, std::uint32_t id, std::vector<PageRun> runs, bool owner);
  ~Extent();
  Extent(const Extent&) = delete;
  Extent& operator=(const Extent&) = delete;

  [[nodiscard]] std::size_t bytes() const;
  [[nodiscard]] std::uint32_t id() const { return id_; }
  [[nodiscard]] PhysicalMemory& memory() const { return memory_; }

  /// Puts the pages at `at` (all of them, in order), with mmap's protection bits. False where the
  /// system refuses (its limit of mappings); then part of the range may be replaced.
  [[nodiscard]] bool map(std::byte* at, int protection) const;

 private:
  PhysicalMemory& memory_;
  std::uint32_t id_;
  std::vector<PageRun> runs_;
  bool owner_;
};

/// The memory of one GPU: a sparse file that all processes share, with a book of who owns which
/// page at its start. A free page is a hole, so it reads as zero and costs nothing. All functions
/// may be called from any thread.
///
/// The book is changed under a file lock that the system drops when its holder dies, and each
/// change is one store, so a killed process leaves a consistent book. A process is alive while it
/// holds the lock of its slot.
class PhysicalMemory {
 public:
  /// Opens or creates the memory of GPU `device`. nullptr if the folder cannot be used.
  static std::unique_ptr<PhysicalMemory> open(int device);

  [[nodiscard]] int device() const { return device_; }
  [[nodiscard]] std::size_t total_bytes() const;
  std::size_t free_bytes();

  /// Takes bytes (rounded up to pages). nullptr when fewer are free.
  std::shared_ptr<Extent> take(std::size_t bytes);

  /// The pages of extent `id` of the process in `slot`; nullptr if there is none.
  std::shared_ptr<Extent> look(std::uint16_t slot, std::uint32_t id);

  [[nodiscard]] std::uint16_t slot() const { return slot_; }

  /// For a child after fork: it must not keep the parent's locks alive.
  void forget_locks();

  /// This process ends in good order: its memory returns as soon as it is gone.
  void leave();

  /// While it lives, no other process is in such a section; used to serialise delays.
  class Serial {
   public:
    explicit Serial(PhysicalMemory& memory);
    ~Serial();
    Serial(const Serial&) = delete;
    Serial& operator=(const Serial&) = delete;

   private:
    PhysicalMemory& memory_;
    std::lock_guard<std::mutex> guard_;
  };

 private:
  friend class Extent;
  class Locked;

  PhysicalMemory(int device, int lock_fd, int data_fd, Book* book);
  bool join();
  void give(const std::vector<PageRun>& runs);
  void reap();
  [[nodiscard]] std::uint32_t count_free() const;

  const int device_;
  int lock_fd_;  // never mapped: a mapping that a child inherits would keep its locks
  const int data_fd_;
  Book* const book_;
  std::uint16_t slot_ = 0;
  std::uint32_t last_extent_ = 0;
  std::mutex mutex_;
  std::mutex serial_;
};

}  // namespace sim
