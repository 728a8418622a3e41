#include <fmt/format.h>

#include "policy/settings.hpp"
#include "tools/verbs.hpp"

namespace kvcached::tools {

int help_settings() {
  fmt::print(
      "Flags of `kvcached run`, and the environment variables that they set. A flag wins over a\n"
      "variable. Sizes are written as 512MiB, 8GiB or 40%.\n");
  for (const SettingInfo& info : setting_infos()) {
    fmt::print("\n  {} {}   {}\n      {}{}\n", info.flag, info.value, info.variable, info.meaning,
               info.standard.empty() ? "" : fmt::format(" (default: {})", info.standard));
  }
  return 0;
}

}  // namespace kvcached::tools
