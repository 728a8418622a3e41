// The library's own table of doors, and which door a code address in the library is.
#pragma once

#include <map>
#include <set>
#include <string>

#include "tests/preload/elf.hpp"
#include "tests/preload/run_program.hpp"

namespace kvcached::test {

inline const std::set<std::string>& hook_symbols() {
  static const std::set<std::string> all = {
#define HOOK(symbol, ...) #symbol,
#define NVML(symbol, ...)
#define EVIDENCE(symbol, ...)
#define NODE(symbol, ...)
#include "shim/entry/table.inc"
#undef HOOK
#undef EVIDENCE
#undef NODE
  };
  return all;
}

inline const std::set<std::string>& evidence_symbols() {
  static const std::set<std::string> all = {
#define HOOK(symbol, ...)
#define EVIDENCE(symbol, ...) #symbol,
#define NODE(symbol, ...)
#include "shim/entry/table.inc"
#undef HOOK
#undef NVML
#undef EVIDENCE
#undef NODE
  };
  return all;
}

inline const std::set<std::string>& node_symbols() {
  static const std::set<std::string> all = {
#define HOOK(symbol, ...)
#define NVML(symbol, ...)
#define EVIDENCE(symbol, ...)
#define NODE(symbol, ...) #symbol,
#include "shim/entry/table.inc"
#undef HOOK
#undef NVML
#undef EVIDENCE
#undef NODE
  };
  return all;
}

// "cuMemAlloc_v2" for the code that look-ups answer in its place; empty when it is no such code.
inline std::string door_at(std::uint64_t offset) {
  static const auto labels = read_elf(library()).labels;
  const std::string prefix = "kvcached_looked_up_";
  const auto found = labels.find(offset);
  return found != labels.end() && found->second.starts_with(prefix)
             ? found->second.substr(prefix.size())
             : "";
}

}  // namespace kvcached::test
