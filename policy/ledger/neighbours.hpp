// What lies beside a pool's file in its directory: who may use the file, and pools of other
// layouts.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "policy/ledger/ledger.hpp"

namespace kvcached::ledger {

inline constexpr std::string_view kMend = "; remove it once no engine uses it";

struct Answer {
  Refusal refusal = Refusal::ok;
  std::string why;
};

std::string error_text(int error);

// Of this user, or of root, who could do anything anyway.
bool is_ours(const struct stat& status) noexcept;

// Whether a directory was made for a group: setgid, open to it and not to all. By permission bits
// alone; whether its owner is to be trusted is for whoever named it.
bool is_shared(const struct stat& directory) noexcept;

// Gives a new file to those who share its directory: to the directory's group where it was made for
// that, else to its owner alone. Whatever the umask, which is the engine's.
void share_with_group(int directory, int file) noexcept;

// Why `name` in the directory, or the directory itself, cannot be used: another user's is
// `foreign`, the rest is `unreachable`.
Answer denied(int directory, const char* name, int error);
Answer cannot_make(int directory, int error);

// Of a directory that no user named: whoever made it first could lead us to a file of its own,
// since its name can be guessed.
Answer check_default(int directory);
// Whoever may write the file decides what all its members do. Who only reads may be shown also what
// belongs to the directory's owner: the user has named the directory.
Answer check_file(int directory, int file, bool only_read = false);

// The layout version of a pool of this GPU in which somebody is present and which is not ours: the
// memory that it hands out is the same. 0: none.
std::uint32_t other_version_in_use(int directory, const GpuUuid& gpu) noexcept;

}  // namespace kvcached::ledger
