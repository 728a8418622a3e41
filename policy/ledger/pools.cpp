// The pools of a directory, for tools: seen from outside, without joining.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>

#include "policy/ledger/file.hpp"
#include "policy/ledger/history.hpp"
#include "policy/ledger/neighbours.hpp"
#include "policy/ledger/snapshot.hpp"

namespace kvcached::ledger {
namespace {

constexpr int kReadPatience = 50;     // ms; then the numbers may be of different moments
constexpr int kWritePatience = 1000;  // ms; a user can wait longer than an engine's thread

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

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

bool is_of_this_layout(std::string_view name) {
  return name.ends_with("-v" + std::to_string(layout::kVersion));
}

// Calls `read` with every pool of the directory, open for reading. What it answers, if not empty,
// is a complaint about that pool.
void for_each_pool(const std::string& directory, std::vector<std::string>& complaints,
                   std::vector<std::string>* leftovers,
                   const std::function<std::string(const PoolFile& file, bool locked)>& read) {
  const std::unique_ptr<DIR, CloseDirectory> handle(::opendir(directory.c_str()));
  const std::string nobody = "no pool in " + directory + ": no process has joined yet";
  if (!handle) {
    complaints.push_back(errno == ENOENT ? nobody
                                         : "pool directory " + directory + ": " + reason(errno));
    return;
  }
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(handle.get())) {
    if (looks_like_pool(entry->d_name)) names.emplace_back(entry->d_name);
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    PoolFile file;
    bool locked = false;
    std::string wrong = open_as_it_is(::dirfd(handle.get()), name, false, file, locked);
    if (wrong.empty()) wrong = read(file, locked);
    if (wrong.empty()) continue;
    const bool leftover = !is_of_this_layout(name) && file.descriptor() >= 0 &&
                          !file.locked_elsewhere(layout::kPresenceByte);
    if (leftover) wrong = "left by another version of kvcached" + std::string(kMend);
    std::vector<std::string>& lines = leftover && leftovers != nullptr ? *leftovers : complaints;
    lines.push_back("pool ");
    lines.back().append(directory).append("/").append(name).append(": ").append(wrong);
  }
  if (names.empty()) complaints.push_back(nobody);
}

}  // namespace

std::string open_as_it_is(int directory, const std::string& name, bool writable, PoolFile& file,
                          bool& locked) {
  const int access = writable ? O_RDWR : O_RDONLY;
  file = PoolFile(
      ::openat(directory, name.c_str(), access | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  if (file.descriptor() < 0 && writable && (errno == EACCES || errno == EPERM)) {
    return "belongs to another user; its owner and its directory's group may change it";
  }
  if (file.descriptor() < 0) return reason(errno);
  if (Answer answer = check_file(directory, file.descriptor(), !writable);
      answer.refusal != Refusal::ok) {
    return answer.why;
  }
  locked = file.lock_within(writable ? LockKind::exclusive : LockKind::shared,
                            writable ? kWritePatience : kReadPatience);
  if (writable && !locked) return "a process has held its lock for a second; is one stopped?";
  struct stat status {};
  if (::fstat(file.descriptor(), &status) != 0) return reason(errno);
  if (status.st_size < static_cast<off_t>(sizeof(layout::Header))) return "damaged: too short";
  if (!is_of_this_layout(name)) return "made by another version of kvcached";
  if (status.st_size != static_cast<off_t>(layout::kFileSize)) return "damaged: wrong size";
  if (!file.map(writable)) return reason(errno);
  std::string why;
  check_header(file.mapped()->header, layout::kFileSize, why);
  return why;
}

std::vector<Snapshot> read_pools(const std::string& directory, std::vector<std::string>& complaints,
                                 std::vector<std::string>* leftovers) {
  std::vector<Snapshot> pools;
  for_each_pool(directory, complaints, leftovers,
                [&](const PoolFile& file, bool locked) -> std::string {
                  const layout::File& mapped = *file.mapped();
                  const auto numbers = std::make_unique<Numbers>();
                  read_numbers(file, layout::kSlots, SlotSet().set(), size_of(mapped), *numbers);
                  if (locked) file.unlock();
                  if (!file.intact()) return "damaged: it shrank";
                  pools.push_back(complete(mapped, *numbers));
                  return {};
                });
  return pools;
}

std::vector<History> read_histories(const std::string& directory, Instant now,
                                    std::vector<std::string>& complaints,
                                    std::vector<std::string>* leftovers) {
  std::vector<History> pools;
  for_each_pool(
      directory, complaints, leftovers, [&](const PoolFile& file, bool locked) -> std::string {
        if (locked) file.unlock();
        pools.push_back({uuid_of(file.mapped()->header), read_moments(*file.mapped(), now)});
        return {};
      });
  return pools;
}

}  // namespace kvcached::ledger
