// Which pool a verb means.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "policy/ledger/ledger.hpp"
#include "tools/verbs.hpp"

namespace kvcached::tools {

// A pool that was found, as it was then.
struct Place {
  std::string directory;
  ledger::GpuUuid gpu{};
  ledger::Snapshot pool;
};

// The directory of the pools: as given, else as the settings say. 0, or an exit code after a
// complaint: neither a bad one nor another user's may be taken for the default.
int find_directory(std::string_view verb, const std::optional<std::string>& given,
                   std::string& directory);

// Whether a GPU's name as `stat` shows it begins with `text`, whatever the case.
bool names_gpu(std::string_view text, const ledger::GpuUuid& gpu);

// The pool that is meant: of the GPU named, else the only one with that tenant (empty: the only
// one). 0, or an exit code after a complaint.
int choose(std::string_view verb, const ControlOptions& options, const std::string& tenant,
           Place& place);

}  // namespace kvcached::tools
