// A pool's last ten minutes as curves, a column for ten seconds.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tools/show.hpp"
#include "tools/table.hpp"

namespace kvcached::tools {
namespace {

using ledger::History;
using ledger::Moment;

constexpr std::int64_t kColumnSeconds = 10;
constexpr std::size_t kColumns = 60;

// The most in each column; -1: nobody wrote anything down.
class Curve {
 public:
  Curve() { most_.fill(-1); }
  void add(std::int64_t seconds_ago, Pages value) {
    const auto back = static_cast<std::size_t>(std::max<std::int64_t>(seconds_ago, 0));
    const std::size_t column = back / static_cast<std::size_t>(kColumnSeconds);
    if (column >= kColumns) return;
    std::int64_t& most = most_[kColumns - 1 - column];
    most = std::max(most, static_cast<std::int64_t>(value.value));
    last_ = value;
    peak_ = std::max(peak_, value);
  }
  Pages last() const { return last_; }
  Pages peak() const { return peak_; }

  // Eighths of `full`; anything above nothing is seen.
  std::string drawn(Pages full) const {
    constexpr std::array<std::string_view, 9> kBars{"_", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    std::string text;
    for (const std::int64_t most : most_) {
      if (most < 0) {
        text += ' ';
        continue;
      }
      const auto value = static_cast<std::uint64_t>(most);
      const std::uint64_t eighths =
          (value * 8 + full.value - 1) / std::max<std::uint64_t>(full.value, 1);
      text += kBars[std::min<std::uint64_t>(eighths, 8)];
    }
    return text;
  }

 private:
  std::array<std::int64_t, kColumns> most_{};
  Pages last_;
  Pages peak_;
};

struct TenantCurves {
  Curve charged;
  Curve used;
  Curve want;
};

}  // namespace

std::string curves_of(const History& history, std::int64_t now) {
  std::string text = fmt::format("{}\n", ledger::to_string(history.gpu));
  if (history.moments.empty()) return text + "no history: nobody has written any in ten minutes\n";
  TenantCurves pool;
  Curve free;
  std::map<std::string, TenantCurves> tenants;
  Pages size;
  for (const Moment& moment : history.moments) {
    const std::int64_t ago = now - moment.second;
    size = std::max(size, moment.pool);
    pool.charged.add(ago, moment.charged);
    pool.used.add(ago, moment.used);
    pool.want.add(ago, moment.want);
    free.add(ago, moment.free);
    for (const Moment::Tenant& tenant : moment.tenants) {
      TenantCurves& curves = tenants[tenant.name.empty() ? "(gone)" : clean(tenant.name)];
      curves.charged.add(ago, tenant.charged);
      curves.used.add(ago, tenant.used);
      curves.want.add(ago, tenant.want);
    }
  }
  std::vector<std::vector<std::string>> rows{
      {"OF", "WHAT", "10 MIN AGO" + std::string(kColumns - 13, ' ') + "NOW", "LAST", "MOST"}};
  const auto add = [&](const std::string& of, const char* what, const Curve& curve) {
    rows.push_back({of, what, curve.drawn(size), show_size(curve.last()), show_size(curve.peak())});
  };
  add("pool", "charged", pool.charged);
  add("pool", "used", pool.used);
  add("pool", "free", free);
  add("pool", "want", pool.want);
  for (const auto& [name, curves] : tenants) {
    add(name, "charged", curves.charged);
    add(name, "used", curves.used);
    if (curves.want.peak()) add(name, "want", curves.want);
  }
  return text + fmt::format("full height: {}\n\n", show_size(size)) + show_table(rows);
}

}  // namespace kvcached::tools
