// What the kernel says in a file of a few bytes, under /proc.
#pragma once

#include <span>
#include <string_view>

namespace kvcached {

// As much of it as `room` takes, which the answer points to; empty where it cannot be read.
// Allocates nothing.
std::string_view read_small(const char* path, std::span<char> room) noexcept;

}  // namespace kvcached
