// The pools of a directory, for tools.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "policy/ledger/file.hpp"
#include "policy/ledger/snapshot.hpp"

namespace kvcached::ledger {
namespace {

constexpr int kReadPatience = 50;  // ms; then the numbers may be of different moments

// "GPU-<uuid>-v<number>", whatever the number.
bool looks_like_pool(std::string_view name) {
  const std::size_t uuid_end = to_string(GpuUuid{}).size();
  return name.substr(0, 4) == "GPU-" && name.size() > uuid_end + 2 &&
         name.substr(uuid_end, 2) == "-v" &&
         name.find_first_not_of("0123456789", uuid_end + 2) == std::string_view::npos;
}

std::string reason(int error) {
  if (error == EACCES || error == EPERM) return "belongs to another user";
  if (error == ELOOP || error == ENXIO) return "not a regular file";
  std::array<char, 128> buffer{};
  return ::strerror_r(error, buffer.data(), buffer.size());
}

// Empty when `snapshot` was filled, else what is wrong.
std::string read_pool(int directory, const std::string& name, Snapshot& snapshot) {
  PoolFile file(
      ::openat(directory, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  if (file.descriptor() < 0) return reason(errno);
  const bool locked = file.lock_within(layout::kMutexByte, LockKind::shared, kReadPatience);
  struct stat status {};
  if (::fstat(file.descriptor(), &status) != 0) return reason(errno);
  if (!S_ISREG(status.st_mode)) return "not a regular file";
  if (status.st_size < static_cast<off_t>(sizeof(layout::Header))) return "damaged: too short";
  const std::string current = "-v" + std::to_string(layout::kVersion);
  if (name.size() < current.size() || name.substr(name.size() - current.size()) != current) {
    return "made by another version of kvcached";
  }
  if (status.st_size != static_cast<off_t>(layout::kFileSize)) return "damaged: wrong size";
  if (!file.map(false)) return reason(errno);
  const layout::File& mapped = *file.mapped();
  std::string why;
  if (check_header(mapped.header, layout::kFileSize, why) != Refusal::ok) return why;
  const auto numbers = std::make_unique<Numbers>();
  read_numbers(file, layout::kSlots, Pages(mapped.header.pool_pages.load()), *numbers);
  if (locked) file.unlock(layout::kMutexByte);
  if (!file.intact()) return "damaged: it shrank";
  snapshot = complete(mapped, *numbers);
  return {};
}

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

}  // namespace

std::vector<Snapshot> read_pools(const std::string& directory,
                                 std::vector<std::string>& complaints) {
  std::vector<Snapshot> pools;
  const std::unique_ptr<DIR, CloseDirectory> handle(::opendir(directory.c_str()));
  const std::string nobody = "no pool in " + directory + ": no process has joined yet";
  if (!handle) {
    complaints.push_back(errno == ENOENT ? nobody
                                         : "pool directory " + directory + ": " + reason(errno));
    return pools;
  }
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(handle.get())) {
    if (looks_like_pool(entry->d_name)) names.emplace_back(entry->d_name);
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    Snapshot snapshot;
    const std::string wrong = read_pool(::dirfd(handle.get()), name, snapshot);
    if (wrong.empty()) {
      pools.push_back(std::move(snapshot));
    } else {
      complaints.push_back("pool ");
      complaints.back().append(directory).append("/").append(name).append(": ").append(wrong);
    }
  }
  if (names.empty()) complaints.push_back(nobody);
  return pools;
}

}  // namespace kvcached::ledger
