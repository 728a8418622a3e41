#include "policy/settings.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "policy/changes.hpp"

namespace kvcached {
namespace {

constexpr std::size_t kLongestName = 47;  // as the pool stores it
constexpr std::size_t kLongestPath = 4000;

constexpr Bytes kLargestStripe{1ULL << 30};

bool set_switch(bool& target, std::string_view text) {
  if (text != "0" && text != "1") return false;
  target = text == "1";
  return true;
}

bool set_size(Size& target, const std::optional<Size>& size) {
  if (size) target = *size;
  return size.has_value();
}

bool set_name(std::string& target, std::string_view text) {
  const auto printable = [](char c) { return c >= ' ' && c <= '~'; };
  if (text.empty() || text.size() > kLongestName ||
      !std::all_of(text.begin(), text.end(), printable)) {
    return false;
  }
  target = text;
  return true;
}

bool set_weight(std::uint32_t& target, std::string_view text) {
  const std::optional<std::uint32_t> weight = parse_weight(text);
  if (weight) target = *weight;
  return weight.has_value();
}

bool set_stripe(Bytes& target, std::string_view text) {
  const std::optional<Size> size = parse_size(text);
  if (!size || size->is_share) return false;
  const std::uint64_t bytes = size->bytes.value;
  const bool power = bytes >= kPageSize.value && (bytes & (bytes - 1)) == 0;
  if (bytes != 0 && (!power || size->bytes > kLargestStripe)) return false;
  target = size->bytes;
  return true;
}

bool set_warm(std::optional<Bytes>& target, std::string_view text) {
  const std::optional<Size> size = parse_size(text);
  if (!size || size->is_share) return false;
  target = size->bytes;
  return true;
}

bool set_directory(std::string& target, std::string_view text) {
  if (text.substr(0, 1) != "/" || text.size() > kLongestPath) return false;
  target = text;
  return true;
}

bool set_file(std::string& target, std::string_view text) {
  if (text.empty() || text.size() > kLongestPath) return false;
  target = text;
  return true;
}

bool set_log(LogLevel& target, std::string_view text) {
  constexpr std::array<std::string_view, 4> kNames{"quiet", "warning", "info", "debug"};
  const auto* const found = std::find(kNames.begin(), kNames.end(), text);
  if (found == kNames.end()) return false;
  target = static_cast<LogLevel>(found - kNames.begin());
  return true;
}

struct Entry {
  SettingInfo info;
  std::string_view allowed;  // completes "KVCACHED_X=value: "
  bool (*apply)(Settings&, std::string_view);
};

constexpr std::string_view kPagesAllowed = "not a size of at least 2MiB; write e.g. 8GiB or 40%";

constexpr std::array kEntries{
    Entry{{"KVCACHED_DISABLE", "--disable", "0|1", "0", "1: pass every call through untouched"},
          "not a switch; write 0 or 1",
          [](Settings& s, std::string_view v) { return set_switch(s.disabled, v); }},
    Entry{{"KVCACHED_POOL", "--pool", "SIZE|PERCENT", "90%",
           "most memory that all engines on a GPU share; the pool's first process decides"},
          kPagesAllowed,
          [](Settings& s, std::string_view v) { return set_size(s.pool, parse_some_pages(v)); }},
    Entry{{"KVCACHED_NAME", "--name", "NAME", "PROGRAM-SESSION",
           "who is charged; processes of one name share minimum and maximum"},
          "not a name; write 1 to 47 printable ASCII characters",
          [](Settings& s, std::string_view v) { return set_name(s.name, v); }},
    Entry{{"KVCACHED_MIN", "--min", "SIZE|PERCENT", "0",
           "memory of the pool that is kept for this engine, used or not"},
          "not 0 or a size of at least 2MiB; write e.g. 8GiB or 40%",
          [](Settings& s, std::string_view v) { return set_size(s.min, parse_pages(v)); }},
    Entry{{"KVCACHED_MAX", "--max", "SIZE|PERCENT", "100%",
           "memory of the pool that this engine never exceeds"},
          kPagesAllowed,
          [](Settings& s, std::string_view v) { return set_size(s.max, parse_some_pages(v)); }},
    Entry{{"KVCACHED_WEIGHT", "--weight", "NUMBER", "100",
           "this engine's share when memory is short, relative to the others'"},
          "not a weight; write a whole number from 1 to 10000",
          [](Settings& s, std::string_view v) { return set_weight(s.weight, v); }},
    Entry{{"KVCACHED_MATCH", "--match", "RULE", "none",
           "allocations that are elastic without a tag, by size, count or caller"},
          "not a rule; write e.g. size>=256MiB,size<=2GiB or module=libkv*.so,symbol=*init_cache*",
          [](Settings& s, std::string_view v) {
            const std::optional<MatchRule> rule = parse_match(v);
            if (rule) s.match = rule;
            return rule.has_value();
          }},
    Entry{{"KVCACHED_HINTS", "--hints", "none|args", "none",
           "args: kernels use only memory that their arguments name, which the user promises"},
          "not a hint; write none or args",
          [](Settings& s, std::string_view v) {
            s.hints_args = v == "args";
            return s.hints_args || v == "none";
          }},
    Entry{{"KVCACHED_STRIPE", "--stripe", "SIZE", "0",
           "largest piece by which a tensor grows and shrinks; 0: chosen by size"},
          "not a stripe size; write 0 or a power of two from 2MiB to 1GiB",
          [](Settings& s, std::string_view v) { return set_stripe(s.stripe, v); }},
    Entry{{"KVCACHED_WARM", "--warm", "SIZE", "follows demand",
           "most memory kept backed without a block in it, as a reserve for growth"},
          "not an amount; write e.g. 512MiB or 0",
          [](Settings& s, std::string_view v) { return set_warm(s.warm, v); }},
    Entry{{"KVCACHED_PREFIX_CACHE", "--prefix-cache", "SIZE|PERCENT", "5%",
           "most of a cache that cached prefixes keep backed while no request uses them"},
          "not a size; write e.g. 8GiB or 40%",
          [](Settings& s, std::string_view v) { return set_size(s.prefix_cache, parse_size(v)); }},
    Entry{{"KVCACHED_DIR", "--dir", "DIRECTORY", "/dev/shm/kvcached-<uid>",
           "where the pool's account lies; engines that share a GPU must share it"},
          "not a directory; write an absolute path",
          [](Settings& s, std::string_view v) {
            s.directory_named = set_directory(s.directory, v);
            return s.directory_named;
          }},
    Entry{{"KVCACHED_LOG_FILE", "--log-file", "FILE", "standard error", "where the log goes"},
          "not a file; write a path",
          [](Settings& s, std::string_view v) { return set_file(s.log_file, v); }},
    Entry{{"KVCACHED_LOG", "--log", "quiet|warning|info|debug", "warning", "how much is logged"},
          "not a level; write quiet, warning, info or debug",
          [](Settings& s, std::string_view v) { return set_log(s.log, v); }},
    Entry{{"KVCACHED_ADAPTERS", "--adapters", "0|1", "1",
           "0: leave engines' Python code alone; only tags and rules count"},
          "not a switch; write 0 or 1",
          [](Settings& s, std::string_view v) { return set_switch(s.adapters, v); }},
};

constexpr auto kInfos = [] {
  std::array<SettingInfo, kEntries.size()> infos{};
  for (std::size_t i = 0; i < infos.size(); ++i) infos[i] = kEntries[i].info;
  return infos;
}();

std::string default_directory() {
  const std::string user = "/kvcached-" + std::to_string(::geteuid());
  struct stat status {};
  const bool shared_memory = ::stat("/dev/shm", &status) == 0 && S_ISDIR(status.st_mode) &&
                             ::access("/dev/shm", W_OK | X_OK) == 0;
  return (shared_memory ? "/dev/shm" : "/tmp") + user;
}

// Compares as far as the GPU's size is not needed for it.
bool certainly_above(const Size& min, const Size& max, const Size& pool) {
  if (min.is_share && max.is_share) return min.share > max.share;
  if (!min.is_share && !max.is_share) return min.bytes > max.bytes;
  return !pool.is_share && min.of(pool.bytes) > max.of(pool.bytes);
}

}  // namespace

std::span<const SettingInfo> setting_infos() { return kInfos; }

Settings read_settings(const std::function<const char*(const char*)>& get,
                       std::vector<std::string>& complaints) {
  Settings settings;
  settings.directory = default_directory();
  for (const Entry& entry : kEntries) {
    // The names are literals, so they end with a zero.
    const char* const value = get(entry.info.variable.data());
    if (value == nullptr || entry.apply(settings, value)) continue;
    complaints.push_back(std::string(entry.info.variable) + "=" + shown(value) + ": " +
                         std::string(entry.allowed));
  }
  if (certainly_above(settings.min, settings.max, settings.pool)) {
    // Above the default maximum, when KVCACHED_MAX is absent or was bad itself.
    const char* const max = get("KVCACHED_MAX");
    const bool own_max = max != nullptr && parse_some_pages(max).has_value();
    // A share and an amount were compared by way of the pool.
    const bool by_pool = settings.min.is_share != settings.max.is_share;
    complaints.push_back("KVCACHED_MIN=" + shown(get("KVCACHED_MIN")) +
                         ": above the maximum; write at most KVCACHED_MAX, which is " +
                         shown(own_max ? max : "100%") +
                         (by_pool ? " of KVCACHED_POOL=" + shown(get("KVCACHED_POOL")) : ""));
    settings.min = Settings{}.min;
  }
  return settings;
}

}  // namespace kvcached
