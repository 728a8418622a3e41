// Memory over time as a picture: panels below each other, all with the same scales. In each, areas
// that are stacked, a line, and a limit.
#pragma once

#include <string>
#include <vector>

namespace kvcached::chart {

struct Panel {
  std::string title;
  // GiB, one value a sample. All areas and the line have the same samples.
  std::vector<std::vector<double>> areas;
  std::vector<double> line;
  double limit = 0;
};

struct Chart {
  std::string title;
  std::vector<std::string> areas;  // names, for the legend
  std::string line;
  std::string limit;
  std::string time;       // what the axis of time counts
  double per_sample = 1;  // of that, from one sample to the next
  std::vector<Panel> panels;
};

// SVG.
std::string draw(const Chart& chart);

}  // namespace kvcached::chart
