// What lies beside a pool's file in its directory: who may use the file, and pools of other
// layouts.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>

#include "policy/ledger/state.hpp"

namespace kvcached::ledger {

// Of this user, or of root, who could do anything anyway.
bool is_ours(const struct stat& status) noexcept;

// Whether a directory was made for a group: setgid, open to it and not to all. By permission bits
// alone; whether its owner is to be trusted is for whoever named it.
bool is_shared(const struct stat& directory) noexcept;

// Gives a new file to those who share its directory: to the directory's group where it was made for
// that, else to its owner alone. Whatever the umask, which is the engine's.
void share_with_group(int directory, int file) noexcept;

// Whether the file is one that its maker has not given its space and its mode yet.
bool is_being_made(int directory, const char* name) noexcept;

// The layout version of a pool of this GPU in which somebody is present and which is not ours: the
// memory that it hands out is the same. 0: none.
std::uint32_t other_version_in_use(int directory, const GpuUuid& gpu) noexcept;

}  // namespace kvcached::ledger
