// Reads what a finished shared library exports, needs and contains.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace kvcached::test {

struct Elf {
  std::set<std::string> exports;                // defined dynamic symbols
  std::vector<std::string> needed;              // shared libraries
  std::set<std::string> versions;               // required symbol versions ("GLIBC_2.34")
  std::map<std::uint64_t, std::string> labels;  // all code symbols by offset, local ones too
};

Elf read_elf(const std::string& file);

}  // namespace kvcached::test
