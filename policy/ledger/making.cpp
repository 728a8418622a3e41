#include "policy/ledger/making.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "policy/ledger/books.hpp"
#include "policy/ledger/file.hpp"
#include "policy/ledger/test_points.hpp"

namespace kvcached::ledger {
namespace {

constexpr int kTries = 3;
constexpr int kMakings = 16;
// After the pool's name; no name of a pool goes on so.
constexpr std::string_view kUnderWay = ".new-";

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

// Whose maker lives is locked; or not locked yet, and then its maker finds it locked by us, or
// gone, and begins anew.
void remove_leftovers(int directory, const std::string& stem) {
  const int list = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, CloseDirectory> handle(list < 0 ? nullptr : ::fdopendir(list));
  if (!handle && list >= 0) ::close(list);
  if (!handle) return;
  while (const dirent* entry = ::readdir(handle.get())) {
    const char* const name = &entry->d_name[0];
    if (std::string_view(name).substr(0, stem.size()) != stem) continue;
    const PoolFile left(
        ::openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
    if (left.descriptor() >= 0 && left.try_lock(LockKind::exclusive))
      ::unlinkat(directory, name, 0);
  }
}

// A file under a name of its own, which goes with this object.
class Draft {
 public:
  Draft(int directory, const std::string& stem) : directory_(directory) {
    std::uint64_t number = 0;
    if (::getrandom(&number, sizeof number, GRND_NONBLOCK) != sizeof number) {
      number = static_cast<std::uint64_t>(::getpid()) << 32 ^
               static_cast<std::uint64_t>(steady_clock().now().time_since_epoch().count());
    }
    name_ = stem + std::to_string(number);
    file_ = PoolFile(
        ::openat(directory, name_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0600));
  }
  ~Draft() {
    if (file_.descriptor() >= 0) ::unlinkat(directory_, name_.c_str(), 0);
  }
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;

  PoolFile& file() { return file_; }
  // Under a name that nothing has; else false, with the reason in errno.
  bool publish(const std::string& name) const {
    if (::renameat2(directory_, name_.c_str(), directory_, name.c_str(), RENAME_NOREPLACE) == 0) {
      return true;
    }
    // Some file systems know only links.
    return (errno == EINVAL || errno == ENOSYS) &&
           ::linkat(directory_, name_.c_str(), directory_, name.c_str(), 0) == 0;
  }

 private:
  int directory_;
  std::string name_;
  PoolFile file_;
};

Answer fill(int directory, PoolFile& file, const OpenRequest& request) {
  Answer answer = allocate(directory, file.descriptor());
  if (answer.refusal != Refusal::ok) return answer;
  if (!file.map(true)) return {Refusal::unreachable, "cannot map it: " + error_text(errno)};
  write_header(*file.mapped(), request);
  return {};
}

}  // namespace

Answer make_file(int directory, const std::string& name, const OpenRequest& request) {
  const std::string stem = name + std::string(kUnderWay);
  remove_leftovers(directory, stem);
  for (int i = 0; i < kMakings; ++i) {
    Draft draft(directory, stem);
    PoolFile& file = draft.file();
    if (file.descriptor() < 0 && errno == EEXIST) continue;
    if (file.descriptor() < 0) return cannot_make(directory, errno);
    test_point("create.named");
    if (!file.try_lock(LockKind::exclusive)) {
      if (errno == EWOULDBLOCK) continue;
      return {Refusal::unreachable, "cannot lock it: " + error_text(errno) + "; set KVCACHED_DIR"};
    }
    Answer answer = fill(directory, file, request);
    if (answer.refusal != Refusal::ok) return answer;
    test_point("create.whole");
    if (draft.publish(name) || errno == EEXIST) return {};
    if (errno != ENOENT) return cannot_make(directory, errno);
  }
  return {Refusal::unreachable, "it is being removed again and again"};
}

// All space is taken now: a file system that fills up later cannot take pages from the mapping.
Answer allocate(int directory, int file) {
  // Going beyond this limit would not fail but send a signal that ends the engine.
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < layout::kFileSize) {
    return {Refusal::full, "the limit on file sizes (ulimit -f) is below " +
                               std::to_string(layout::kFileSize) + " bytes"};
  }
  share_with_group(directory, file);
  int error = EINTR;
  for (int i = 0; i < kTries && error == EINTR; ++i) {
    error = ::posix_fallocate(file, 0, layout::kFileSize);
  }
  if (error == 0) return {};
  // Back to nothing, so that the next to come starts afresh.
  if (::ftruncate(file, 0) != 0) return {Refusal::unreachable, error_text(errno)};
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  return {full ? Refusal::full : Refusal::unreachable,
          "no room for " + std::to_string(layout::kFileSize) + " bytes: " + error_text(error) +
              "; free some or set KVCACHED_DIR"};
}

void write_header(layout::File& file, const OpenRequest& request) noexcept {
  layout::Header& header = file.header;
  set(header.ready, 0U);
  auto* words = reinterpret_cast<layout::U64*>(&file);
  for (std::size_t i = 0; i < layout::kFileSize / sizeof(layout::U64); ++i) {
    words[i].store(0, std::memory_order_relaxed);
  }
  set(header.magic, layout::kMagic);
  set(header.version, layout::kVersion);
  set(header.header_size, std::uint32_t{sizeof(layout::Header)});
  set(header.slot_size, std::uint32_t{sizeof(layout::Slot)});
  set(header.slot_count, layout::kSlots);
  set(header.tenant_size, std::uint32_t{sizeof(layout::Tenant)});
  set(header.tenant_count, layout::kTenants);
  const auto boot = boot_id();
  const auto gpu = words_of(request.gpu);
  for (std::size_t i = 0; i < 2; ++i) {
    set(header.boot_id[i], boot[i]);
    set(header.gpu[i], gpu[i]);
  }
  set(header.pool_pages, std::min(request.pool.value, layout::kMaxPoolPages));
  set(header.gpu_pages, std::min(request.gpu_total.value, layout::kMaxPoolPages));
  test_point("create.filled");
  set(header.ready, 1U);
}

}  // namespace kvcached::ledger
