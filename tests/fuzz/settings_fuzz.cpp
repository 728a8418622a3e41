// Settings out of arbitrary text: every line of the input is the value of one variable.
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>

#include "policy/settings.hpp"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

void check(const kvcached::Size& size) {
  require(!size.is_share || (size.share >= 0 && size.share <= 1));
  const kvcached::Bytes total(80ULL << 30);
  require(!size.is_share || size.of(total) <= total);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  std::map<std::string_view, std::string> values;
  std::size_t begin = 0;
  for (const kvcached::SettingInfo& info : kvcached::setting_infos()) {
    if (begin > text.size()) break;
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line != "-") values[info.variable] = line;  // "-": not set
    kvcached::parse_match(line);
  }
  std::vector<std::string> complaints;
  const kvcached::Settings settings = kvcached::read_settings(
      [&](const char* name) {
        const auto found = values.find(name);
        return found == values.end() ? nullptr : found->second.c_str();
      },
      complaints);
  check(settings.pool);
  check(settings.min);
  check(settings.max);
  require(settings.pool.is_share ? settings.pool.share > 0
                                 : static_cast<bool>(settings.pool.bytes));
  require(settings.weight >= 1 && settings.weight <= 10'000);
  require(!settings.match || settings.match->at_least <= settings.match->at_most);
  require(settings.directory.front() == '/');
  require(settings.name.size() <= 47);
  require(complaints.size() <= kvcached::setting_infos().size() + 1);
  for (const std::string& complaint : complaints) {
    require(complaint.find('\n') == std::string::npos && complaint.size() < 300);
  }
  return 0;
}
