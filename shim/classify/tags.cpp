#include "shim/classify/tags.hpp"

#include <array>

namespace kvcached::classify {
namespace {

// Fixed size and trivially destructible: usable at any moment of a thread's life.
struct Tags {
  static constexpr std::uint32_t kNamed = 8;
  std::uint32_t depth = 0;
  std::array<std::array<char, 16>, kNamed> names{};
};

constinit thread_local Tags tags;

}  // namespace

void push_tag(std::string_view tag) noexcept {
  if (tags.depth < Tags::kNamed) {
    auto& name = tags.names[tags.depth];
    name.fill('\0');
    tag.copy(name.data(), name.size() - 1);
  }
  ++tags.depth;
}

bool pop_tag() noexcept {
  if (tags.depth == 0) {
    return false;
  }
  --tags.depth;
  return true;
}

std::uint32_t tag_depth() noexcept { return tags.depth; }

std::string_view current_tag() noexcept {
  if (tags.depth == 0 || tags.depth > Tags::kNamed) {
    return {};
  }
  return tags.names[tags.depth - 1].data();
}

}  // namespace kvcached::classify
