// Reads the little of a PTX text that a launch needs: entries and the sizes of their parameters.
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "tests/sim/module.hpp"

namespace sim {
namespace {

std::string without_comments(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.compare(i, 2, "//") == 0) {
      i = text.find('\n', i);
      if (i == std::string::npos) break;
    } else if (text.compare(i, 2, "/*") == 0) {
      i = text.find("*/", i);
      if (i == std::string::npos) break;
      ++i;
      out += ' ';
      continue;
    }
    out += text[i];
  }
  return out;
}

std::vector<std::string> words(const std::string& text) {
  std::vector<std::string> out;
  std::string word;
  for (const char c : text) {
    if (std::isspace(static_cast<unsigned char>(c)) != 0) {
      if (!word.empty()) out.push_back(word);
      word.clear();
    } else {
      word += c;
    }
  }
  if (!word.empty()) out.push_back(word);
  return out;
}

/// Bytes of a fundamental type such as .u64; 0 for another word.
std::size_t type_bytes(const std::string& word) {
  if (word.size() < 3 || word[0] != '.' || std::strchr("busf", word[1]) == nullptr) return 0;
  char* end = nullptr;
  const std::size_t bits = std::strtoul(word.c_str() + 2, &end, 10);
  return *end == '\0' ? bits / 8 : 0;
}

/// `.param .align 8 .b8 name[24]`, `.param .u64 .ptr .global .align 1 name`.
bool parse_parameter(const std::string& text, std::size_t& offset, std::vector<Parameter>& out) {
  std::size_t bytes = 0;
  std::size_t alignment = 0;
  bool pointer = false;
  const std::vector<std::string> all = words(text);
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i] == ".ptr") pointer = true;  // an alignment after it is of what it points to
    if (all[i] == ".align" && i + 1 < all.size() && !pointer) {
      alignment = std::strtoul(all[i + 1].c_str(), nullptr, 10);
    }
    if (bytes == 0) bytes = type_bytes(all[i]);
  }
  if (bytes == 0) return false;
  if (alignment == 0) alignment = bytes;
  if (const std::size_t bracket = text.find('['); bracket != std::string::npos) {
    bytes *= std::strtoul(text.c_str() + bracket + 1, nullptr, 10);
  }
  offset = (offset + alignment - 1) / alignment * alignment;
  out.push_back({offset, bytes});
  offset += bytes;
  return true;
}

}  // namespace

bool parse_ptx(const std::string& text, std::map<std::string, Kernel>& out) {
  const std::string code = without_comments(text);
  if (code.find(".version") == std::string::npos || code.find(".target") == std::string::npos) {
    return false;
  }
  constexpr std::string_view kEntry = ".entry";
  for (std::size_t at = code.find(kEntry); at != std::string::npos; at = code.find(kEntry, at)) {
    at += kEntry.size();
    const std::size_t name_end = code.find_first_of("({", at);
    if (name_end == std::string::npos) return false;
    const std::vector<std::string> name = words(code.substr(at, name_end - at));
    if (name.empty()) return false;
    Kernel kernel{name.front(), {}, nullptr, nullptr};
    if (code[name_end] == '(') {
      const std::size_t close = code.find(')', name_end);
      if (close == std::string::npos) return false;
      std::size_t offset = 0;
      for (std::size_t from = name_end + 1; from < close;) {
        const std::size_t to = std::min(code.find(',', from), close);
        const std::string parameter = code.substr(from, to - from);
        if (!words(parameter).empty() && !parse_parameter(parameter, offset, kernel.parameters)) {
          return false;
        }
        from = to + 1;
      }
    }
    out.insert_or_assign(kernel.name, kernel);
  }
  return true;
}

}  // namespace sim
