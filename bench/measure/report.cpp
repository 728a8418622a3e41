#include "bench/measure/report.hpp"

#include <cstdio>
#include <ctime>
#include <fstream>
#include <stdexcept>
#include <utility>

#include "bench/measure/numbers.hpp"

namespace kvcached::bench {
namespace {

constexpr std::size_t kMostShown = 100;

}  // namespace

Report::Report(std::string device, int cuda_driver) {
  const std::time_t now = std::time(nullptr);
  char date[32] = {};
  std::strftime(date, sizeof date, "%F", std::gmtime(&now));
  if (cuda_driver != 0) {
    std::printf("%s, CUDA driver %d.%d, %s\n", device.c_str(), cuda_driver / 1000,
                cuda_driver % 1000 / 10, date);
  } else {
    std::printf("%s, %s\n", device.c_str(), date);
  }
  all_ = {{"device", std::move(device)}, {"cuda_driver", cuda_driver}, {"date", date}};
  all_["results"] = nlohmann::json::array();
}

void Report::compare(const std::string& what, const std::vector<double>& ours,
                     const std::vector<double>& raw, const std::string& unit) {
  const double o50 = median(ours), r50 = median(raw);
  const double o99 = quantile(ours, 0.99), r99 = quantile(raw, 0.99);
  const double ratio = r50 > 0 ? o50 / r50 : 0;
  std::printf("ratio %7.4f  %-44s raw %9.3f   ours %9.3f %s   (p99 %9.3f / %9.3f)\n", ratio,
              what.c_str(), r50, o50, unit.c_str(), r99, o99);
  std::fflush(stdout);
  all_["results"].push_back({{"what", what},
                             {"ratio", ratio},
                             {"unit", unit},
                             {"raw", r50},
                             {"ours", o50},
                             {"raw_p99", r99},
                             {"ours_p99", o99},
                             {"raw_count", raw.size()},
                             {"ours_count", ours.size()}});
  // Few enough to look at one by one.
  if (ours.size() <= kMostShown) all_["results"].back()["ours_each"] = ours;
}

void Report::goal(const std::string& what, double value, double most, const std::string& unit) {
  std::printf("  goal %-8s %-44s %9.3f %s, at most %.3f\n", value <= most ? "met" : "MISSED",
              what.c_str(), value, unit.c_str(), most);
  std::fflush(stdout);
  all_["results"].push_back(
      {{"what", what}, {"value", value}, {"goal", most}, {"unit", unit}, {"met", value <= most}});
}

void Report::note(const std::string& line) const {
  std::printf("  %s\n", line.c_str());
  std::fflush(stdout);
}

void Report::write(const std::string& file) const {
  if (file.empty()) return;
  std::ofstream out(file, std::ios::app);
  out << all_.dump() << '\n';
  if (!out.flush()) throw std::runtime_error(file + ": cannot be written");
}

}  // namespace kvcached::bench
