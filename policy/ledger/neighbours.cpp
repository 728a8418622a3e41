#include "policy/ledger/neighbours.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "policy/ledger/file.hpp"
#include "policy/ledger/layout.hpp"

namespace kvcached::ledger {
namespace {

// Versions further apart are not looked for.
constexpr std::uint32_t kNewest = layout::kVersion + 16;

}  // namespace

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

bool is_being_made(int directory, const char* name) noexcept {
  struct stat status {};
  return ::fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(status.st_mode) &&
         status.st_size == 0;
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
