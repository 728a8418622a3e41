#include <fmt/format.h>

#include "tools/verbs.hpp"

namespace kvcached::tools {

int version() {
  fmt::print("kvcached 0.1.0\n");
  return 0;
}

}  // namespace kvcached::tools
