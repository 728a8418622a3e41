// The tags of the calling thread: between push and pop its allocations are elastic.
#pragma once

#include <cstdint>
#include <string_view>

namespace kvcached::classify {

// Copies the tag; what is longer than 15 characters is cut. Never fails.
void push_tag(std::string_view tag) noexcept;

// False when there is nothing to pop.
bool pop_tag() noexcept;

// How many tags are pushed.
std::uint32_t tag_depth() noexcept;

// The innermost tag; empty without one, and for tags nested deeper than 8.
std::string_view current_tag() noexcept;

}  // namespace kvcached::classify
