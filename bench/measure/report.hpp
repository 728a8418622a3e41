// What every benchmark prints: a line a comparison, the ratio first, and one JSON line a run.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace kvcached::bench {

class Report {
 public:
  Report(std::string device, int cuda_driver);  // prints both, with the date

  // Ours beside raw, and what it ought to be; the goal decides nothing but what is printed.
  // `unit` is of both series.
  void compare(const std::string& what, const std::vector<double>& ours,
               const std::vector<double>& raw, const std::string& unit);
  // One figure against a goal that it should not exceed.
  void goal(const std::string& what, double value, double most, const std::string& unit);
  void note(const std::string& line) const;
  // Appends the run to the file, unless its name is empty.
  void write(const std::string& file) const;

 private:
  nlohmann::json all_;
};

}  // namespace kvcached::bench
