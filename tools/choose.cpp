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

std::string find_directory(const std::string& given, std::string& directory) {
  directory = given;
  if (!given.empty()) return {};
  std::vector<std::string> ignored;
  const Settings settings =
      read_settings([](const char* name) { return std::getenv(name); }, ignored);
  directory = settings.directory;
  return settings.directory_named ? "" : ledger::distrust_default(directory);
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
  if (const std::string why = find_directory(options.directory, place.directory); !why.empty()) {
    complain(fmt::format("{}: {}", verb, why));
    return kRefused;
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
