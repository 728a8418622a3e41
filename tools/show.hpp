// Pools and their history as text, complete with the last newline.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "policy/ledger/ledger.hpp"

namespace kvcached::tools {

// Its number, which means nothing here where it is one of another PID namespace.
std::string show_process(const ledger::MemberState& member);

std::string table_of(const ledger::Snapshot& pool);
// Curves of the last ten minutes; `now`: the second of the monotonic clock.
std::string curves_of(const ledger::History& history, std::int64_t now);

std::string json_of(const std::vector<ledger::Snapshot>& pools, bool on_one_line);
std::string json_of(const std::vector<ledger::History>& histories, std::int64_t now,
                    bool on_one_line);

}  // namespace kvcached::tools
