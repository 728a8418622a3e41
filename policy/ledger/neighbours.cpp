#include "policy/ledger/neighbours.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "policy/ledger/file.hpp"
#include "policy/ledger/layout.hpp"

namespace kvcached::ledger {
namespace {

// Versions further apart are not looked for.
constexpr std::uint32_t kNewest = layout::kVersion + 16;

constexpr const char* kAnother =
    "; set KVCACHED_DIR to a directory of your own or one that both may write";

std::string user(uid_t uid) { return "user " + std::to_string(uid); }

}  // namespace

std::string error_text(int error) {
  std::array<char, 128> buffer{};
  return ::strerror_r(error, buffer.data(), buffer.size());  // GNU: returns the text
}

bool is_ours(const struct stat& status) noexcept {
  return status.st_uid == ::geteuid() || status.st_uid == 0;
}

bool is_shared(const struct stat& directory) noexcept {
  constexpr mode_t kGroups = S_ISGID | S_IRWXG;
  return (directory.st_mode & kGroups) == kGroups && (directory.st_mode & S_IWOTH) == 0;
}

void share_with_group(int directory, int file) noexcept {
  struct stat folder {};
  const bool shared = ::fstat(directory, &folder) == 0 && is_shared(folder) &&
                      ::fchown(file, static_cast<uid_t>(-1), folder.st_gid) == 0;
  ::fchmod(file, shared ? 0660 : 0600);
}

Answer denied(int directory, const char* name, int error) {
  struct stat status {};
  // A directory that we may not enter hides its files; then it is the one that refuses.
  const bool known = ::fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 ||
                     ::fstat(directory, &status) == 0;
  if ((error == EACCES || error == EPERM) && known && status.st_uid != ::geteuid()) {
    return {Refusal::foreign, "belongs to " + user(status.st_uid) + kAnother};
  }
  return {Refusal::unreachable, error_text(error) + "; set KVCACHED_DIR to a writable directory"};
}

Answer cannot_make(int directory, int error) {
  if (error == ENOSPC || error == EDQUOT) return {Refusal::full, "no space left to create it"};
  return denied(directory, ".", error);
}

Answer check_default(int directory) {
  struct stat status {};
  if (::fstat(directory, &status) != 0) return {Refusal::unreachable, error_text(errno)};
  if (!is_ours(status)) return {Refusal::foreign, "belongs to " + user(status.st_uid) + kAnother};
  if ((status.st_mode & S_IWOTH) == 0) return {};
  return {Refusal::foreign, "may be written by every user; chmod o-w it or set KVCACHED_DIR"};
}

Answer check_file(int directory, int file, bool only_read) {
  struct stat status {};
  struct stat folder {};
  if (::fstat(file, &status) != 0 || ::fstat(directory, &folder) != 0) {
    return {Refusal::unreachable, error_text(errno)};
  }
  if (!S_ISREG(status.st_mode)) {
    return {Refusal::damaged, "not a regular file" + std::string(kMend)};
  }
  const bool groups = is_shared(folder) && status.st_gid == folder.st_gid;
  const bool shown = only_read && status.st_uid == folder.st_uid;
  if (!is_ours(status) && !groups && !shown) {
    return {Refusal::foreign, "belongs to " + user(status.st_uid) + kAnother};
  }
  if ((status.st_mode & S_IWOTH) == 0) return {};
  return {Refusal::foreign, "may be written by every user" + std::string(kMend)};
}

// The byte for presence has been the same in all layouts, and must stay so.
std::uint32_t other_version_in_use(int directory, const GpuUuid& gpu) noexcept {
  try {
    const std::string stem = to_string(gpu) + "-v";
    for (std::uint32_t version = 1; version <= kNewest; ++version) {
      if (version == layout::kVersion) continue;
      const std::string name = stem + std::to_string(version);
      const PoolFile file(::openat(directory, name.c_str(),
                                   O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
      if (file.descriptor() >= 0 && file.locked_elsewhere(layout::kPresenceByte)) return version;
    }
  } catch (...) {  // no memory for a name: not looked for
  }
  return 0;
}

}  // namespace kvcached::ledger
