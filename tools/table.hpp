// Text for people: sizes and aligned columns.
#pragma once

#include <string>
#include <vector>

#include "policy/units.hpp"

namespace kvcached::tools {

// "0", "512 MiB", "1.5 GiB": whole MiB below one GiB, one decimal above.
std::string show_size(Bytes bytes);
std::string show_size(Pages pages);

// Columns as wide as their widest cell, two spaces apart. A column whose cells all begin with a
// digit or "-" is aligned to the right. The first row is the heading.
std::string show_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace kvcached::tools
