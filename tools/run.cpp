// The verb that starts a program with the library in front of it.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "policy/changes.hpp"
#include "policy/settings.hpp"
#include "policy/small_file.hpp"
#include "tools/verbs.hpp"

namespace kvcached::tools {
namespace {

namespace fs = std::filesystem;

struct Parsed {
  std::map<std::string, std::string, std::less<>> variables;  // what the flags set
  std::vector<std::string> command;
  std::string complaint;  // not empty: the rest does not count
};

const SettingInfo* find_flag(std::string_view flag) {
  const auto infos = setting_infos();
  const auto found = std::find_if(infos.begin(), infos.end(),
                                  [&](const SettingInfo& info) { return info.flag == flag; });
  return found == infos.end() ? nullptr : &*found;
}

// Flags stand before "--" or before the first word that is no flag; what follows is the command,
// word by word, and is not looked at.
Parsed parse(const std::vector<std::string>& arguments) {
  Parsed parsed;
  auto at = arguments.begin();
  for (; at != arguments.end() && at->starts_with("-"); ++at) {
    if (*at == "--") {
      ++at;
      break;
    }
    const auto equals = at->find('=');
    const std::string flag = at->substr(0, equals);
    const SettingInfo* info = find_flag(flag);
    if (info == nullptr) {
      parsed.complaint =
          fmt::format("run: no flag is named {}; try: kvcached help settings", shown(flag));
      return parsed;
    }
    std::string& value = parsed.variables[std::string(info->variable)];
    if (equals != std::string::npos) {
      value = at->substr(equals + 1);
    } else if (++at == arguments.end() || *at == "--") {
      parsed.complaint = fmt::format("run: {} needs a value: {} {}", flag, flag, info->value);
      return parsed;
    } else {
      value = *at;
    }
  }
  parsed.command.assign(at, arguments.end());
  if (parsed.command.empty()) {
    parsed.complaint = "run: no command given: kvcached run [flags] -- command…";
  }
  return parsed;
}

// The library checks its settings too, but goes on with a default; here the user still sees it.
std::string check_settings(const Parsed& parsed) {
  std::vector<std::string> complaints;
  read_settings(
      [&](const char* name) -> const char* {
        const auto found = parsed.variables.find(name);
        return found == parsed.variables.end() ? std::getenv(name) : found->second.c_str();
      },
      complaints);
  return complaints.empty() ? "" : "run: " + complaints.front();
}

// Beside the command as built, or in lib/ next to bin/ as installed.
std::optional<std::string> find_library() {
  std::error_code error;
  const fs::path here = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const fs::path& path : {here / "libkvcached.so", here / "../lib/libkvcached.so"}) {
    if (fs::exists(path, error)) return fs::weakly_canonical(path, error).string();
  }
  return std::nullopt;
}

// The loader passes over what it cannot load, and the command would run as stock.
bool can_be_loaded(const std::string& library) {
  std::array<char, 4> magic{};
  return fs::is_regular_file(library) && read_small(library.c_str(), magic) == "\177ELF";
}

// What other libraries are preloaded stays, behind ours.
std::string preload_list(const std::string& library) {
  const char* before = std::getenv("LD_PRELOAD");
  if (before == nullptr || *before == '\0') return library;
  return library + ":" + before;
}

}  // namespace

int run(const std::vector<std::string>& arguments) {
  const Parsed parsed = parse(arguments);
  if (!parsed.complaint.empty()) return complain(parsed.complaint);
  if (const std::string bad = check_settings(parsed); !bad.empty()) return complain(bad);

  const std::optional<std::string> library = find_library();
  if (!library) {
    return complain("run: libkvcached.so lies neither beside this command nor in ../lib");
  }
  if (library->find_first_of(": ") != std::string::npos) {
    return complain(fmt::format(
        "run: {}: LD_PRELOAD cannot name a path with a space or colon; install elsewhere",
        *library));
  }
  if (!can_be_loaded(*library)) {
    return complain(
        fmt::format("run: {}: not a library that can be loaded; install it again", *library));
  }
  for (const auto& [name, value] : parsed.variables) {
    setenv(name.c_str(), value.c_str(), 1);
  }
  setenv("LD_PRELOAD", preload_list(*library).c_str(), 1);

  std::vector<std::string> command = parsed.command;
  std::vector<char*> words;
  words.reserve(command.size() + 1);
  for (std::string& word : command) words.push_back(word.data());
  words.push_back(nullptr);
  execvp(words.front(), words.data());
  const int error = errno;
  complain(fmt::format("run: {}: {}", command.front(), std::strerror(error)));
  return error == ENOENT ? 127 : 126;
}

}  // namespace kvcached::tools
