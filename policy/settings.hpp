// The settings: environment variables KVCACHED_*, the same as flags of `kvcached run`.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "policy/units.hpp"

namespace kvcached {

// A size as the user wrote it: an amount, or a share of the GPU's memory.
struct Size {
  Bytes bytes;
  double share = 0;  // 0..1; counts when `is_share`
  bool is_share = false;
  Bytes of(Bytes total) const;
};

// An allocation that meets every condition is elastic. Text form: conditions between commas, each
// at most once: "size>=256MiB", "size<=2GiB", "module=libkv*.so", "symbol=*init_cache*",
// "count>=3", "count<=40". Module and symbol mean a function on the stack of the call: the file
// name of its module, and the name under which the module exports it (of a C++ function: the
// mangled one). `*` is any text, `?` any character. The count is of a process's allocations that
// meet all else, from 1.
struct MatchRule {
  Bytes at_least{};
  Bytes at_most = Bytes::max();
  std::string module{};  // empty: any
  std::string symbol{};  // empty: any
  std::uint64_t first = 1;
  std::uint64_t last = std::numeric_limits<std::uint64_t>::max();
  bool by_caller() const { return !module.empty() || !symbol.empty(); }
};

enum class LogLevel : std::uint8_t { quiet, warning, info, debug };

struct Settings {
  bool disabled = false;           // KVCACHED_DISABLE
  Size pool{Bytes{}, 0.9, true};   // KVCACHED_POOL
  std::string name;                // KVCACHED_NAME; empty: its program and session
  Size min{};                      // KVCACHED_MIN
  Size max{Bytes{}, 1.0, true};    // KVCACHED_MAX, of the pool
  std::uint32_t weight = 100;      // KVCACHED_WEIGHT
  std::optional<MatchRule> match;  // KVCACHED_MATCH; none: only tags count
  bool hints_args = false;         // KVCACHED_HINTS=args
  Bytes stripe{};                  // KVCACHED_STRIPE: largest extent per segment; 0: automatic
  std::optional<Bytes> warm;       // KVCACHED_WARM: most bytes kept backed without a live block
  Size prefix_cache{Bytes{}, 0.05, true};  // KVCACHED_PREFIX_CACHE; of the cache, adapters read it
  std::string directory;                   // KVCACHED_DIR
  bool directory_named = false;            // false: the default one
  std::string log_file;                    // KVCACHED_LOG_FILE; empty: standard error
  LogLevel log = LogLevel::warning;        // KVCACHED_LOG
  bool adapters = true;                    // KVCACHED_ADAPTERS
};

// One setting as `kvcached help settings` lists it and `kvcached run` offers it.
struct SettingInfo {
  std::string_view variable;  // "KVCACHED_POOL"
  std::string_view flag;      // "--pool"
  std::string_view value;     // "SIZE|PERCENT"
  std::string_view standard;  // the default, as text
  std::string_view meaning;   // one line
};
std::span<const SettingInfo> setting_infos();

// Reads all settings through `get` (null: not set). A bad value leaves its default and adds one
// complaint: "KVCACHED_POOL=banana: not a size; write e.g. 8GiB or 40%". Contradictions (minimum
// above maximum) likewise.
Settings read_settings(const std::function<const char*(const char*)>& get,
                       std::vector<std::string>& complaints);

// Parsers behind it, for flags and tests. None on bad input.
std::optional<Size> parse_size(std::string_view text);
// For what is counted in pages: also none for an amount below one, whose unit was forgotten. 0 is
// an amount here, but none to parse_some_pages.
std::optional<Size> parse_pages(std::string_view text);
std::optional<Size> parse_some_pages(std::string_view text);
std::optional<MatchRule> parse_match(std::string_view text);
std::optional<std::uint32_t> parse_weight(std::string_view text);

// Whether all of `text` fits a pattern of MatchRule.
bool glob_matches(std::string_view pattern, std::string_view text) noexcept;

}  // namespace kvcached
