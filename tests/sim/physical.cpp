#include "tests/sim/physical.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <string>
#include <utility>

#include "tests/sim/settings.hpp"

namespace sim {
namespace {

constexpr std::uint64_t kMagic = 0x73696d2d67707531;  // changes with the book's layout
constexpr std::uint32_t kMaxPages = 1U << 18U;        // 512 GiB
constexpr std::uint16_t kSlots = 1024;
constexpr off_t kLockByte = off_t{1} << 60U;
constexpr off_t kSerialByte = kLockByte + 1;
constexpr off_t kSlotBytes = kLockByte + 16;

std::int64_t now_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

bool file_lock(int fd, int command, short type, off_t byte) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  int result = -1;
  do {
    result = fcntl(fd, command, &lock);
  } while (result != 0 && errno == EINTR);
  return result == 0;
}

/// Whether somebody else holds the byte.
bool held(int fd, off_t byte) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

}  // namespace

/// Slot 0 stands for nobody.
struct Book {
  struct Slot {
    std::uint32_t used;
    std::uint32_t left;       // ended in good order
    std::int64_t dead_since;  // 0: not seen dead yet
  };
  std::uint64_t magic;
  std::uint32_t pages;
  Slot slots[kSlots];
  std::uint16_t owner[kMaxPages];
  std::uint32_t extent[kMaxPages];
};

namespace {

constexpr std::size_t kBookBytes = (sizeof(Book) + kPageBytes - 1) / kPageBytes * kPageBytes;

off_t offset_of(std::uint32_t page) {
  return static_cast<off_t>(kBookBytes + std::size_t{page} * kPageBytes);
}

}  // namespace

class PhysicalMemory::Locked {
 public:
  explicit Locked(PhysicalMemory& memory) : memory_(memory), guard_(memory.mutex_) {
    file_lock(memory_.lock_fd_, F_OFD_SETLKW, F_WRLCK, kLockByte);
  }
  ~Locked() { file_lock(memory_.lock_fd_, F_OFD_SETLK, F_UNLCK, kLockByte); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  PhysicalMemory& memory_;
  std::lock_guard<std::mutex> guard_;
};

PhysicalMemory::Serial::Serial(PhysicalMemory& memory) : memory_(memory), guard_(memory.serial_) {
  file_lock(memory_.lock_fd_, F_OFD_SETLKW, F_WRLCK, kSerialByte);
}

PhysicalMemory::Serial::~Serial() {
  file_lock(memory_.lock_fd_, F_OFD_SETLK, F_UNLCK, kSerialByte);
}

Extent::Extent(PhysicalMemory& memory, std::uint32_t id, std::vector<PageRun> runs, bool owner)
    : memory_(memory), id_(id), runs_(std::move(runs)), owner_(owner) {}

Extent::~Extent() {
  if (owner_) memory_.give(runs_);
}

std::size_t Extent::bytes() const {
  std::size_t pages = 0;
  for (const PageRun& run : runs_) pages += run.count;
  return pages * kPageBytes;
}

bool Extent::map(std::byte* at, int protection) const {
  for (const PageRun& run : runs_) {
    const std::size_t length = std::size_t{run.count} * kPageBytes;
    if (mmap(at, length, protection, MAP_SHARED | MAP_FIXED, memory_.data_fd_,
             offset_of(run.first)) == MAP_FAILED) {
      return false;
    }
    // A forked child has no GPU, and its copy of the mapping would only cost time.
    madvise(at, length, MADV_DONTFORK);
    at += length;
  }
  return true;
}

PhysicalMemory::PhysicalMemory(int device, int lock_fd, int data_fd, Book* book)
    : device_(device), lock_fd_(lock_fd), data_fd_(data_fd), book_(book) {}

std::unique_ptr<PhysicalMemory> PhysicalMemory::open(int device) {
  const std::string& folder = settings().directory;
  mkdir(folder.c_str(), 0700);
  const std::string path = folder + "/gpu" + std::to_string(device);
  const int lock_fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  const int data_fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_fd < 0 || data_fd < 0) return nullptr;
  file_lock(lock_fd, F_OFD_SETLKW, F_WRLCK, kLockByte);
  struct stat info {};
  if (fstat(data_fd, &info) != 0 || (info.st_size < static_cast<off_t>(kBookBytes) &&
                                     ftruncate(data_fd, static_cast<off_t>(kBookBytes)) != 0)) {
    return nullptr;
  }
  void* book = mmap(nullptr, kBookBytes, PROT_READ | PROT_WRITE, MAP_SHARED, data_fd, 0);
  if (book == MAP_FAILED) return nullptr;
  madvise(book, kBookBytes, MADV_DONTFORK);
  std::unique_ptr<PhysicalMemory> memory(
      new PhysicalMemory(device, lock_fd, data_fd, static_cast<Book*>(book)));
  const bool joined = memory->join();
  file_lock(lock_fd, F_OFD_SETLK, F_UNLCK, kLockByte);
  return joined ? std::move(memory) : nullptr;
}

/// Under the lock. The first process alone decides the size; a file that nobody uses starts anew.
bool PhysicalMemory::join() {
  const auto pages =
      static_cast<std::uint32_t>(std::min<std::size_t>(settings().memory / kPageBytes, kMaxPages));
  if (book_->magic == kMagic) reap();
  const auto* slots = book_->slots;
  const bool in_use = book_->magic == kMagic &&
                      std::any_of(slots, slots + kSlots, [](const auto& s) { return s.used != 0; });
  if (!in_use) {
    if (ftruncate(data_fd_, 0) != 0 || ftruncate(data_fd_, offset_of(pages)) != 0) return false;
    book_->pages = pages;
    book_->magic = kMagic;
  }
  for (std::uint16_t slot = 1; slot < kSlots; ++slot) {
    if (book_->slots[slot].used != 0) continue;
    if (!file_lock(lock_fd_, F_OFD_SETLK, F_WRLCK, kSlotBytes + slot)) continue;
    book_->slots[slot] = {1, 0, 0};
    slot_ = slot;
    return true;
  }
  return false;
}

std::size_t PhysicalMemory::total_bytes() const { return std::size_t{book_->pages} * kPageBytes; }

std::uint32_t PhysicalMemory::count_free() const {
  return static_cast<std::uint32_t>(
      std::count(book_->owner, book_->owner + book_->pages, std::uint16_t{0}));
}

std::size_t PhysicalMemory::free_bytes() {
  const Locked lock(*this);
  reap();
  return std::size_t{count_free()} * kPageBytes;
}

std::shared_ptr<Extent> PhysicalMemory::take(std::size_t bytes) {
  const std::size_t wanted = (bytes + kPageBytes - 1) / kPageBytes;
  const Locked lock(*this);
  if (wanted > count_free()) reap();
  if (wanted == 0 || wanted > count_free()) return nullptr;
  const std::uint16_t* const owner = book_->owner;
  const std::uint16_t* const end = owner + book_->pages;
  // In one piece where that is possible: it is one mapping then.
  const std::uint16_t* from =
      std::search_n(owner, end, static_cast<long>(wanted), std::uint16_t{0});
  if (from == end) from = owner;
  std::vector<PageRun> runs;
  const std::uint32_t id = ++last_extent_;
  for (std::size_t taken = 0; taken < wanted; ++taken) {
    from = std::find(from, end, std::uint16_t{0});
    const auto page = static_cast<std::uint32_t>(from - owner);
    book_->extent[page] = id;
    book_->owner[page] = slot_;
    if (!runs.empty() && runs.back().first + runs.back().count == page) {
      ++runs.back().count;
    } else {
      runs.push_back({page, 1});
    }
  }
  return std::make_shared<Extent>(*this, id, std::move(runs), true);
}

std::shared_ptr<Extent> PhysicalMemory::look(std::uint16_t slot, std::uint32_t id) {
  const Locked lock(*this);
  std::vector<PageRun> runs;
  for (std::uint32_t page = 0; page < book_->pages; ++page) {
    if (book_->owner[page] != slot || book_->extent[page] != id) continue;
    if (!runs.empty() && runs.back().first + runs.back().count == page) {
      ++runs.back().count;
    } else {
      runs.push_back({page, 1});
    }
  }
  if (slot == 0 || runs.empty()) return nullptr;
  return std::make_shared<Extent>(*this, id, std::move(runs), false);
}

void PhysicalMemory::give(const std::vector<PageRun>& runs) {
  const Locked lock(*this);
  for (const PageRun& run : runs) {
    // First the contents, then the ownership: a free page is always zero.
    fallocate(data_fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_of(run.first),
              static_cast<off_t>(std::size_t{run.count} * kPageBytes));
    std::fill_n(book_->owner + run.first, run.count, std::uint16_t{0});
  }
}

/// Under the lock: returns the pages of processes that have been dead for long enough.
void PhysicalMemory::reap() {
  for (std::uint16_t slot = 1; slot < kSlots; ++slot) {
    Book::Slot& entry = book_->slots[slot];
    if (entry.used == 0 || slot == slot_ || held(lock_fd_, kSlotBytes + slot)) continue;
    const std::int64_t now = now_ns();
    if (entry.dead_since == 0) entry.dead_since = now;
    if (entry.left == 0 && now - entry.dead_since < settings().reap_ns) continue;
    for (std::uint32_t page = 0; page < book_->pages; ++page) {
      if (book_->owner[page] != slot) continue;
      fallocate(data_fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_of(page),
                static_cast<off_t>(kPageBytes));
      book_->owner[page] = 0;
    }
    entry = {};
  }
}

void PhysicalMemory::forget_locks() {
  close(lock_fd_);
  lock_fd_ = -1;
}

void PhysicalMemory::leave() { book_->slots[slot_].left = 1; }

}  // namespace sim
