#include "policy/ledger/file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "policy/ledger/patience.hpp"
#include "policy/small_file.hpp"

namespace kvcached::ledger {
namespace {

struct flock range(std::int64_t byte, short type) noexcept {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

}  // namespace

PoolFile::PoolFile(PoolFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      mapped_(std::exchange(other.mapped_, nullptr)),
      device_(other.device_),
      inode_(other.inode_) {}

PoolFile& PoolFile::operator=(PoolFile&& other) noexcept {
  if (this != &other) {
    close();
    descriptor_ = std::exchange(other.descriptor_, -1);
    mapped_ = std::exchange(other.mapped_, nullptr);
    device_ = other.device_;
    inode_ = other.inode_;
  }
  return *this;
}

bool PoolFile::try_lock(std::int64_t byte, LockKind kind) const noexcept {
  struct flock lock = range(byte, kind == LockKind::shared ? F_RDLCK : F_WRLCK);
  return ::fcntl(descriptor_, F_OFD_SETLK, &lock) == 0;
}

bool PoolFile::try_lock(LockKind kind) const noexcept {
  return ::flock(descriptor_, (kind == LockKind::shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0;
}

bool PoolFile::lock_within(LockKind kind, int milliseconds) const noexcept {
  Patience patience(milliseconds);
  for (;;) {
    if (mapped_ != nullptr && !intact()) return false;
    if (try_lock(kind)) return true;
    // No other error passes by waiting.
    if (errno != EWOULDBLOCK && errno != EINTR) return false;
    if (!patience.wait()) return false;
  }
}

void PoolFile::unlock() const noexcept { ::flock(descriptor_, LOCK_UN); }

void PoolFile::unlock(std::int64_t byte) const noexcept {
  struct flock lock = range(byte, F_UNLCK);
  ::fcntl(descriptor_, F_OFD_SETLK, &lock);
}

bool PoolFile::locked_elsewhere(std::int64_t byte) const noexcept {
  struct flock lock = range(byte, F_WRLCK);
  // When the kernel cannot tell, nobody is declared dead.
  return ::fcntl(descriptor_, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

bool PoolFile::map(bool writable) noexcept {
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) return false;
  void* address = ::mmap(nullptr, layout::kFileSize, protection, MAP_SHARED, descriptor_, 0);
  if (address == MAP_FAILED) return false;
  mapped_ = static_cast<layout::File*>(address);
  device_ = status.st_dev;
  inode_ = status.st_ino;
  return true;
}

bool PoolFile::intact() const noexcept {
  struct stat status {};
  return mapped_ != nullptr && ::fstat(descriptor_, &status) == 0 && is_mapped(status) &&
         status.st_size >= static_cast<off_t>(layout::kFileSize);
}

bool PoolFile::removed() const noexcept {
  struct stat status {};
  return mapped_ != nullptr && ::fstat(descriptor_, &status) == 0 && is_mapped(status) &&
         status.st_nlink == 0;
}

bool PoolFile::is_mapped(const struct stat& status) const noexcept {
  return status.st_dev == device_ && status.st_ino == inode_;
}

void PoolFile::close() noexcept {
  struct stat status {};
  const bool ours = mapped_ == nullptr || (::fstat(descriptor_, &status) == 0 && is_mapped(status));
  if (mapped_ != nullptr) ::munmap(mapped_, layout::kFileSize);
  mapped_ = nullptr;
  if (descriptor_ >= 0 && ours) ::close(descriptor_);
  descriptor_ = -1;
}

std::array<std::uint64_t, 2> boot_id() noexcept {
  std::array<std::uint64_t, 2> id{};
  std::array<char, 64> room{};
  std::size_t digits = 0;
  for (const char c : read_small("/proc/sys/kernel/random/boot_id", room)) {
    if (digits == 32) break;
    const bool decimal = c >= '0' && c <= '9';
    if (!decimal && (c < 'a' || c > 'f')) continue;
    const auto digit = static_cast<std::uint64_t>(decimal ? c - '0' : c - 'a' + 10);
    std::uint64_t& word = id[digits / 16];
    word = word << 4 | digit;
    ++digits;
  }
  return id;
}

std::uint64_t pid_namespace() noexcept {
  struct stat status {};
  return ::stat("/proc/self/ns/pid", &status) == 0 ? status.st_ino : 0;
}

std::array<std::uint64_t, 2> words_of(const GpuUuid& uuid) noexcept {
  std::array<std::uint64_t, 2> words{};
  std::memcpy(words.data(), uuid.data(), uuid.size());
  return words;
}

GpuUuid uuid_of(const layout::Header& header) noexcept {
  const std::array<std::uint64_t, 2> words{header.gpu[0].load(), header.gpu[1].load()};
  GpuUuid uuid{};
  std::memcpy(uuid.data(), words.data(), uuid.size());
  return uuid;
}

std::string to_string(const GpuUuid& uuid) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text = "GPU";
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += kDigits[uuid[i] >> 4];
    text += kDigits[uuid[i] & 15];
  }
  return text;
}

std::string file_name(const GpuUuid& uuid) {
  return to_string(uuid) + "-v" + std::to_string(layout::kVersion);
}

}  // namespace kvcached::ledger
