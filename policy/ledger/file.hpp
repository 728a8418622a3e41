// The pool's file as this process holds it: descriptor, locks, mapping.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>

#include "policy/ledger/layout.hpp"
#include "policy/ledger/ledger.hpp"

namespace kvcached::ledger {

enum class LockKind : std::uint8_t { shared, exclusive };

// Locks belong to the open file description: they exclude other PoolFiles, of this process or of
// others, but not the threads that share this one. The kernel drops them at the last close; a
// forked child holds that off until it closes its copy.
//
// The file as a whole has one (flock), held by whoever changes the account, and each of its bytes
// one (OFD), which say who is there. The kernel keeps the two kinds apart, and looks through all of
// a file's locks of a kind for every change of one: among the bytes', whose neighbours other
// processors wrote, a charge would hold the lock twice as long.
//
// A file that is shrunk while it is mapped kills whoever touches the lost part. So the size is
// checked by `intact` before each use of the mapping; only a shrinking within the few
// instructions between check and use goes unnoticed, and nothing of this project ever shrinks it.
class PoolFile {
 public:
  PoolFile() = default;
  explicit PoolFile(int descriptor) : descriptor_(descriptor) {}  // takes it over
  ~PoolFile() { close(); }
  PoolFile(PoolFile&& other) noexcept;
  PoolFile& operator=(PoolFile&& other) noexcept;
  PoolFile(const PoolFile&) = delete;
  PoolFile& operator=(const PoolFile&) = delete;

  int descriptor() const noexcept { return descriptor_; }

  // The whole file's, at once or not at all.
  bool try_lock(LockKind kind) const noexcept;
  // Tries again for about `milliseconds`, asleep in between; 0: once. A mapped file is found intact
  // before each try, not under the lock, where others would wait for it; else false.
  bool lock_within(LockKind kind, int milliseconds) const noexcept;
  void unlock() const noexcept;

  // A byte's, at once or not at all. A shared lock needs a readable descriptor, an exclusive one a
  // writable.
  bool try_lock(std::int64_t byte, LockKind kind) const noexcept;
  void unlock(std::int64_t byte) const noexcept;
  // Whether another open file description holds a lock on the byte.
  bool locked_elsewhere(std::int64_t byte) const noexcept;

  bool map(bool writable) noexcept;
  // Mapped, and the descriptor's file is still the one that is mapped, and as long: a host that
  // closes descriptors which are not its own makes ours another file's.
  bool intact() const noexcept;
  bool removed() const noexcept;  // mapped, but without a name
  layout::File* mapped() const noexcept { return mapped_; }

  // Drops mapping and descriptor, unless that is another file's by now. Safe in a forked child and
  // in a signal handler.
  void close() noexcept;

 private:
  bool is_mapped(const struct stat& status) const noexcept;

  int descriptor_ = -1;
  layout::File* mapped_ = nullptr;
  dev_t device_ = 0;  // of what is mapped, as the next
  ino_t inode_ = 0;
};

// The number the kernel gives each boot; zeros where it does not tell.
std::array<std::uint64_t, 2> boot_id() noexcept;
std::array<std::uint64_t, 2> words_of(const GpuUuid& uuid) noexcept;
GpuUuid uuid_of(const layout::Header& header) noexcept;

// "GPU-…-v4".
std::string file_name(const GpuUuid& uuid);

// Opens or creates the pool's file, locked, checked, mapped and present. See Ledger::open.
PoolFile open_pool(const OpenRequest& request, Refusal& refusal, std::string& complaint);

// Opens the file of that name in a directory as it is: it is neither made nor mended, and the
// caller is not present in it. To be written or only read. Empty when `file` is mapped and checked,
// its owner as well, and its mutex held; else what is wrong.
//
// A reader that cannot have the mutex in time goes on without: `locked` says so.
std::string open_as_it_is(int directory, const std::string& name, bool writable, PoolFile& file,
                          bool& locked);

// Whether a file of this size with this header can be used. `why` says why not.
Refusal check_header(const layout::Header& header, std::uint64_t file_size, std::string& why);

}  // namespace kvcached::ledger
