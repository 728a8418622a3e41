#include "bench/demo/svg.hpp"

#include "bench/chart/chart.hpp"

namespace kvcached::demo {
namespace {

constexpr double kGiB = 1U << 30U;

chart::Panel panel_of(const Chart& chart, double pool_gib) {
  chart::Panel panel{chart.title, {}, {}, pool_gib};
  panel.areas.resize(chart.result->tenants.size());
  for (const Sample& sample : chart.result->samples) {
    for (std::size_t i = 0; i < panel.areas.size(); ++i) {
      panel.areas[i].push_back(static_cast<double>(sample.resident[i]) / kGiB);
    }
    panel.line.push_back(static_cast<double>(sample.gpu) / kGiB);
  }
  return panel;
}

}  // namespace

std::string memory_svg(const std::vector<Chart>& charts, const std::vector<Tenant>& tenants,
                       std::uint64_t pool_bytes, const std::string& device) {
  chart::Chart out;
  out.title = "GPU memory for K and V, three engines on one " + device;
  for (const Tenant& tenant : tenants) out.areas.push_back(tenant.name);
  out.line = "the GPU's, as its driver reports it";
  out.limit = "pool";
  out.time = "engine step";
  for (const Chart& chart : charts) {
    out.panels.push_back(panel_of(chart, static_cast<double>(pool_bytes) / kGiB));
  }
  return chart::draw(out);
}

}  // namespace kvcached::demo
