// Opening and creating the pool's file: every way in which that can be refused.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "policy/ledger/books.hpp"
#include "policy/ledger/file.hpp"
#include "policy/ledger/making.hpp"
#include "policy/ledger/neighbours.hpp"
#include "policy/ledger/test_points.hpp"

namespace kvcached::ledger {
namespace {

constexpr int kOpenPatience = 1000;  // ms; newcomers can wait longer than an engine's thread
constexpr int kOpenTries = 3;
constexpr const char* kOneVersion = "; use one version of kvcached on a GPU";

PoolFile open_directory(const OpenRequest& request, Answer& answer) {
  const std::string& path = request.directory;
  const bool created = ::mkdir(path.c_str(), 0700) == 0;
  if (!created && errno != EEXIST) {
    const int error = errno;
    // mkdir says "read-only" or "no space" even of a directory that exists.
    if (struct stat status{}; ::stat(path.c_str(), &status) != 0) {
      answer = {
          error == ENOSPC ? Refusal::full : Refusal::unreachable,
          "cannot create it: " + error_text(error) + "; set KVCACHED_DIR to a writable directory"};
      return {};
    }
  }
  // A default name can be guessed, and a link laid there; where the user's own leads is the user's.
  const int follow = request.named ? 0 : O_NOFOLLOW;
  PoolFile directory(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC | follow));
  if (directory.descriptor() < 0) {
    answer = denied(AT_FDCWD, path.c_str(), errno);
  } else if (created) {
    ::fchmodat(AT_FDCWD, path.c_str(), 0700, 0);  // a strict umask may have taken our own bits
  } else if (!request.named) {
    answer = check_default(directory.descriptor());
  }
  return directory;
}

// Made where it is missing. It can be removed meanwhile, or a full file system made one of others
// that had no room for ours: so what counts is whether there is one in the end.
PoolFile open_file(int directory, const std::string& name, const OpenRequest& request,
                   Answer& answer) {
  constexpr int kFlags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
  PoolFile file(::openat(directory, name.c_str(), kFlags));
  for (int i = 0; i < kOpenTries && file.descriptor() < 0 && errno == ENOENT; ++i) {
    answer = make_file(directory, name, request);
    file = PoolFile(::openat(directory, name.c_str(), kFlags));
    if (answer.refusal != Refusal::ok && file.descriptor() < 0) return file;
  }
  answer = {};
  if (file.descriptor() >= 0) return file;
  if (errno == ELOOP || errno == EISDIR || errno == ENXIO) {
    answer = {Refusal::damaged, "not a regular file" + std::string(kMend)};
  } else {
    answer = denied(directory, name.c_str(), errno);
  }
  return file;
}

bool of_this_boot(const layout::Header& header) noexcept {
  const auto boot = boot_id();
  return header.boot_id[0].load() == boot[0] && header.boot_id[1].load() == boot[1];
}

// After a power cut the header may be all zero; who died while beginning the pool anew leaves its
// magic without `ready`.
bool unfinished(const layout::Header& header) noexcept {
  const std::uint64_t magic = header.magic.load();
  return header.ready.load() == 0 && (magic == 0 || magic == layout::kMagic);
}

// Under the mutex, with nobody else present: what is left from before is ours to judge.
Answer settle_alone(PoolFile& file, const OpenRequest& request) {
  layout::File& pool = *file.mapped();
  if (unfinished(pool.header)) {
    write_header(pool, request);
    return {};
  }
  Answer answer;
  answer.refusal = check_header(pool.header, layout::kFileSize, answer.why);
  if (answer.refusal != Refusal::ok) return answer;
  if (!of_this_boot(pool.header)) {
    write_header(pool, request);
    return {};
  }
  // The pool's size goes with its first member. What the dead held stays until it is freed.
  set(pool.header.pool_pages, std::min(request.pool.value, layout::kMaxPoolPages));
  set(pool.header.gpu_pages, std::min(request.gpu_total.value, layout::kMaxPoolPages));
  set(pool.header.shortfall, std::uint64_t{0});
  set(pool.header.shortfall_seen, std::uint64_t{0});
  return {};
}

Answer settle(int directory, PoolFile& file, const OpenRequest& request) {
  struct stat status {};
  if (::fstat(file.descriptor(), &status) != 0) return {Refusal::unreachable, error_text(errno)};
  const bool alone = !file.locked_elsewhere(layout::kPresenceByte);
  if (status.st_size == 0 && alone) {
    Answer answer = allocate(directory, file.descriptor());
    if (answer.refusal != Refusal::ok) return answer;
  } else if (status.st_size != static_cast<off_t>(layout::kFileSize)) {
    return {Refusal::damaged, "has " + std::to_string(status.st_size) + " bytes instead of " +
                                  std::to_string(layout::kFileSize) + std::string(kMend)};
  }
  if (!file.map(true)) return {Refusal::unreachable, "cannot map it: " + error_text(errno)};
  Answer answer;
  if (alone) {
    answer = settle_alone(file, request);
  } else {
    answer.refusal = check_header(file.mapped()->header, layout::kFileSize, answer.why);
    if (answer.refusal == Refusal::ok && !of_this_boot(file.mapped()->header)) {
      answer = {Refusal::foreign, "in use by another machine; set KVCACHED_DIR to a local one"};
    }
  }
  if (answer.refusal == Refusal::ok && uuid_of(file.mapped()->header) != request.gpu) {
    answer = {Refusal::damaged, "holds the pool of another GPU" + std::string(kMend)};
  }
  if (answer.refusal == Refusal::ok && !file.try_lock(layout::kPresenceByte, LockKind::shared)) {
    answer = {Refusal::unreachable, "cannot lock it: " + error_text(errno)};
  }
  return answer;
}

// False when somebody removed the file between our opening and our locking it.
bool still_there(int directory, const std::string& name, int file) noexcept {
  struct stat ours {};
  struct stat named {};
  return ::fstat(file, &ours) == 0 &&
         ::fstatat(directory, name.c_str(), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
         ours.st_dev == named.st_dev && ours.st_ino == named.st_ino;
}

PoolFile try_open(int directory, const OpenRequest& request, Answer& answer) {
  const std::string name = file_name(request.gpu);
  for (int i = 0; i < kOpenTries; ++i) {
    PoolFile file = open_file(directory, name, request, answer);
    if (answer.refusal == Refusal::ok) answer = check_file(directory, file.descriptor());
    if (answer.refusal != Refusal::ok) return {};
    test_point("open.opened");
    if (!file.lock_within(LockKind::exclusive, kOpenPatience)) {
      const bool held = errno == EWOULDBLOCK;
      answer = {Refusal::unreachable,
                held ? "a process has held its lock for a second; is one stopped?"
                     : "cannot lock it: " + error_text(errno) + "; set KVCACHED_DIR"};
      return {};
    }
    if (!still_there(directory, name, file.descriptor())) continue;
    answer = settle(directory, file, request);
    file.unlock();
    if (answer.refusal == Refusal::ok) return file;
    return {};
  }
  answer = {Refusal::unreachable, "it is being removed again and again"};
  return {};
}

Answer check_versions(int directory, const GpuUuid& gpu) {
  const std::uint32_t other = other_version_in_use(directory, gpu);
  if (other == 0) return {};
  return {Refusal::version, "a pool of layout version " + std::to_string(other) +
                                " is in use in it, this kvcached has " +
                                std::to_string(layout::kVersion) + kOneVersion};
}

}  // namespace

std::string distrust_default(const std::string& directory) {
  constexpr int kFlags = O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW;
  const PoolFile opened(::open(directory.c_str(), kFlags));
  Answer answer;
  if (opened.descriptor() >= 0) {
    answer = check_default(opened.descriptor());
  } else if (errno != ENOENT) {
    answer = denied(AT_FDCWD, directory.c_str(), errno);
  }
  return answer.refusal == Refusal::ok ? "" : "pool " + directory + ": " + answer.why;
}

Refusal check_header(const layout::Header& header, std::uint64_t file_size, std::string& why) {
  if (header.magic.load() != layout::kMagic) {
    why = "not a pool" + std::string(kMend);
    return Refusal::damaged;
  }
  if (header.version.load() != layout::kVersion) {
    why = "has layout version " + std::to_string(header.version.load()) + ", this kvcached has " +
          std::to_string(layout::kVersion) + kOneVersion;
    return Refusal::version;
  }
  const bool sizes = header.header_size.load() == sizeof(layout::Header) &&
                     header.slot_size.load() == sizeof(layout::Slot) &&
                     header.slot_count.load() == layout::kSlots &&
                     header.tenant_size.load() == sizeof(layout::Tenant) &&
                     header.tenant_count.load() == layout::kTenants &&
                     file_size == layout::kFileSize;
  const bool ranges = header.ready.load() == 1 &&
                      header.pool_pages.load() <= layout::kMaxPoolPages &&
                      header.slots_used.load() <= layout::kSlots;
  if (!sizes || !ranges) {
    why = "damaged header" + std::string(kMend);
    return Refusal::damaged;
  }
  return Refusal::ok;
}

PoolFile open_pool(const OpenRequest& request, Refusal& refusal, std::string& complaint) {
  Answer answer;
  std::string path = request.directory;
  PoolFile file;
  const PoolFile directory = open_directory(request, answer);
  if (answer.refusal == Refusal::ok) answer = check_versions(directory.descriptor(), request.gpu);
  if (answer.refusal == Refusal::ok) {
    file = try_open(directory.descriptor(), request, answer);
    if (answer.refusal != Refusal::ok) {
      path += "/" + file_name(request.gpu);
    } else {
      // Of two that begin at the same time, the one that was present later sees the other.
      answer = check_versions(directory.descriptor(), request.gpu);
      if (answer.refusal != Refusal::ok) file = {};
    }
  }
  refusal = answer.refusal;
  if (refusal != Refusal::ok) complaint = "pool " + path + ": " + answer.why;
  return file;
}

}  // namespace kvcached::ledger
