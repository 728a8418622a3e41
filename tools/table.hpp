// Text for people: sizes and aligned columns.
#pragma once

#include <string>
#include <vector>

#include "policy/clock.hpp"
#include "policy/units.hpp"

namespace kvcached::tools {

// "0", "512 MiB", "1.5 GiB": whole MiB below one GiB, one decimal above.
std::string show_size(Bytes bytes);
std::string show_size(Pages pages);

// "0", "5 us", "17 ms", "1.5 s", "12 min": rounded down.
std::string show_time(Duration time);

// Names come from other processes: a stray control character must not reach the terminal.
std::string clean(std::string text);

// Columns as wide as their widest cell, two spaces apart. A column whose cells all begin with a
// digit or "-" is aligned to the right. The first row is the heading.
std::string show_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace kvcached::tools
