#include "tools/table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace kvcached::tools {
namespace {

constexpr std::uint64_t kMiB = 1ULL << 20;
constexpr std::uint64_t kGiB = 1ULL << 30;

bool looks_like_number(const std::string& cell) {
  return !cell.empty() && (cell.front() == '-' || (cell.front() >= '0' && cell.front() <= '9'));
}

// Cells hold names of programs, so bytes beyond ASCII are possible: what counts is what is seen.
std::size_t width_of(const std::string& cell) {
  return static_cast<std::size_t>(std::count_if(cell.begin(), cell.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

}  // namespace

std::string show_size(Bytes bytes) {
  if (bytes.value == 0) return "0";
  if (bytes.value < kMiB) return fmt::format("{} KiB", (bytes.value + 1023) / 1024);
  if (bytes.value < kGiB) return fmt::format("{} MiB", bytes.value / kMiB);
  return fmt::format("{:.1f} GiB", static_cast<double>(bytes.value) / static_cast<double>(kGiB));
}

std::string show_size(Pages pages) { return show_size(bytes_of(pages)); }

std::string show_time(Duration time) {
  const auto us = time / std::chrono::microseconds(1);
  if (us == 0) return time > Duration::zero() ? "<1 us" : "0";
  if (us < 1'000) return fmt::format("{} us", us);
  if (us < 1'000'000) return fmt::format("{} ms", us / 1'000);
  if (us < 60'000'000) return fmt::format("{}.{} s", us / 1'000'000, us / 100'000 % 10);
  return fmt::format("{} min", us / 60'000'000);
}

std::string clean(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text.empty() ? "-" : text;
}

std::string show_table(const std::vector<std::vector<std::string>>& rows) {
  if (rows.empty()) return "";
  const std::size_t columns = rows.front().size();
  std::vector<std::size_t> widths(columns, 0);
  std::vector<bool> right(columns, rows.size() > 1);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t c = 0; c < columns; ++c) {
      widths[c] = std::max(widths[c], width_of(rows[r][c]));
      if (r > 0 && !looks_like_number(rows[r][c])) right[c] = false;
    }
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < columns; ++c) {
      const std::string gap(widths[c] - width_of(row[c]), ' ');
      line += (c > 0 ? "  " : "") + (right[c] ? gap + row[c] : row[c] + gap);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace kvcached::tools
