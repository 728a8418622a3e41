#include "tools/choose.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <vector>

#include "policy/changes.hpp"
#include "policy/settings.hpp"
#include "tools/table.hpp"

namespace kvcached::tools {
namespace {

using ledger::Snapshot;
using ledger::TenantState;

bool has(const Snapshot& pool, const std::string& tenant) {
  return std::any_of(pool.tenants.begin(), pool.tenants.end(),
                     [&](const TenantState& one) { return one.name == tenant; });
}

std::string names(const std::vector<Snapshot>& pools) {
  std::string text;
  for (const Snapshot& pool : pools) {
    text += (text.empty() ? "" : ", ") + ledger::to_string(pool.gpu);
  }
  return text;
}

}  // namespace

int find_directory(std::string_view verb, const std::optional<std::string>& given,
                   std::string& directory) {
  std::vector<std::string> complaints;
  const Settings settings = read_settings(
      [&](const char* name) -> const char* {
        if (std::string_view(name) != "KVCACHED_DIR") return nullptr;
        return given ? given->c_str() : std::getenv(name);
      },
      complaints);
  if (!complaints.empty()) return complain(fmt::format("{}: {}", verb, complaints.front()));
  directory = settings.directory;
  if (settings.directory_named) return 0;
  const std::string why = ledger::distrust_default(directory);
  if (why.empty()) return 0;
  complain(fmt::format("{}: {}", verb, why));
  return kRefused;
}

bool names_gpu(std::string_view text, const ledger::GpuUuid& gpu) {
  const std::string name = ledger::to_string(gpu);
  const auto same = [](char a, char b) {
    return std::tolower(static_cast<unsigned char>(a)) ==
           std::tolower(static_cast<unsigned char>(b));
  };
  return text.size() <= name.size() && std::equal(text.begin(), text.end(), name.begin(), same);
}

int choose(std::string_view verb, const ControlOptions& options, const std::string& tenant,
           Place& place) {
  if (const int code = find_directory(verb, options.directory, place.directory); code != 0) {
    return code;
  }
  std::vector<std::string> complaints;
  const std::vector<Snapshot> all = ledger::read_pools(place.directory, complaints);
  if (all.empty()) {
    complain(fmt::format("{}: {}", verb, complaints.empty() ? "no pool" : complaints.front()));
    return kRefused;
  }
  std::vector<Snapshot> found = all;
  std::erase_if(found, [&](const Snapshot& pool) { return !names_gpu(options.gpu, pool.gpu); });
  if (found.empty()) {
    return complain(fmt::format("{}: --gpu {}: no pool has that name; there is {}", verb,
                                shown(options.gpu), names(all)));
  }
  if (!tenant.empty()) {
    std::erase_if(found, [&](const Snapshot& pool) { return !has(pool, tenant); });
    if (found.empty()) {
      complain(fmt::format("{}: {}: no tenant has that name; kvcached stat lists them", verb,
                           shown(tenant)));
      return kRefused;
    }
  }
  if (found.size() > 1) {
    return complain(
        fmt::format("{}: several pools are meant; name one by --gpu: {}", verb, names(found)));
  }
  place.gpu = found.front().gpu;
  place.pool = std::move(found.front());
  return 0;
}

}  // namespace kvcached::tools
