#include "policy/small_file.hpp"

#include <fcntl.h>
#include <unistd.h>

namespace kvcached {

std::string_view read_small(const char* path, std::span<char> room) noexcept {
  const int file = ::open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return {};
  const ssize_t size = ::read(file, room.data(), room.size());
  ::close(file);
  return {room.data(), size > 0 ? static_cast<std::size_t>(size) : 0};
}

}  // namespace kvcached
