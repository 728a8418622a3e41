#include "bench/demo/svg.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <functional>

namespace kvcached::demo {
namespace {

constexpr double kWidth = 960;
constexpr double kLeft = 84;
constexpr double kRight = 24;
constexpr double kTop = 64;
constexpr double kPanel = 220;  // height of one chart's area
constexpr double kGap = 64;     // between two
constexpr double kBottom = 60;
constexpr std::size_t kColumns = 800;  // points of a curve at most

constexpr std::array kColours{"#4477aa", "#ee8866", "#44aa88", "#aa4477", "#bbaa33", "#777777"};

template <typename... Values>
std::string format(const char* pattern, Values... values) {
  std::array<char, 512> text{};
  std::snprintf(text.data(), text.size(), pattern, values...);
  return text.data();
}

/// 1, 2 or 5 times a power of ten, so that about `parts` of them make up `range`.
double round_step(double range, int parts) {
  const double raw = range / parts;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw) {
      return factor * power;
    }
  }
  return 10 * power;
}

class Drawing {
 public:
  Drawing(std::size_t steps, double gib, std::size_t charts)
      : steps_(static_cast<double>(std::max<std::size_t>(steps, 1))),
        gib_(gib),
        height_(kTop + static_cast<double>(charts) * (kPanel + kGap) - kGap + kBottom) {
    out_ = format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" "
        "height=\"%g\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222222\">\n"
        "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
        kWidth, height_, kWidth, height_);
  }

  void legend(const std::vector<Tenant>& tenants, const std::string& device) {
    text(kLeft, 22, "start", "GPU memory for K and V, three engines on one " + device, 15);
    double x = kLeft;
    for (std::size_t i = 0; i < tenants.size(); ++i) {
      out_ += format("<rect x=\"%g\" y=\"33\" width=\"14\" height=\"11\" fill=\"%s\"/>\n", x,
                     kColours.at(i % kColours.size()));
      text(x + 20, 43, "start", tenants[i].name);
      x += 40 + 7.5 * static_cast<double>(tenants[i].name.size());
    }
    line(x, 38, x + 18, 38, "#111111", "");
    text(x + 24, 43, "start", "the GPU's, as its driver reports it");
    x += 260;
    line(x, 38, x + 18, 38, "#cc3311", "6 4");
    text(x + 24, 43, "start", "pool");
  }

  void chart(std::size_t place, const Chart& chart, double pool_gib) {
    top_ = kTop + static_cast<double>(place) * (kPanel + kGap) + 14;
    text(kLeft, top_ - 6, "start", chart.title);
    axes();
    const std::vector<Sample>& samples = chart.result->samples;
    const std::size_t engines = chart.result->tenants.size();
    const auto stacked = [](std::size_t count) {
      return [count](const Sample& s) {
        double sum = 0;
        for (std::size_t i = 0; i < count; ++i) {
          sum += static_cast<double>(s.resident[i]);
        }
        return sum;
      };
    };
    for (std::size_t i = 0; i < engines; ++i) {
      std::string upper = points(samples, stacked(i + 1), false);
      upper += points(samples, stacked(i), true);
      out_ += "<polygon fill=\"" + std::string(kColours.at(i % kColours.size())) +
              "\" fill-opacity=\"0.85\" points=\"" + upper + "\"/>\n";
    }
    out_ += "<polyline fill=\"none\" stroke=\"#111111\" stroke-width=\"1.2\" points=\"" +
            points(
                samples, [](const Sample& s) { return static_cast<double>(s.gpu); }, false) +
            "\"/>\n";
    line(kLeft, y(pool_gib), kWidth - kRight, y(pool_gib), "#cc3311", "6 4");
  }

  std::string finish() {
    text((kLeft + kWidth - kRight) / 2, height_ - 14, "middle", "engine step");
    return out_ + "</svg>\n";
  }

 private:
  [[nodiscard]] double x(double step) const {
    return kLeft + step / steps_ * (kWidth - kLeft - kRight);
  }
  [[nodiscard]] double y(double gib) const { return top_ + kPanel - gib / gib_ * kPanel; }

  void text(double at_x, double at_y, const char* anchor, const std::string& words, int size = 13) {
    out_ += format("<text x=\"%g\" y=\"%g\" text-anchor=\"%s\" font-size=\"%d\">", at_x, at_y,
                   anchor, size);
    out_ += words + "</text>\n";
  }

  void line(double x1, double y1, double x2, double y2, const char* colour, const char* dashes) {
    out_ += format("<line x1=\"%g\" y1=\"%g\" x2=\"%g\" y2=\"%g\" stroke=\"%s\"", x1, y1, x2, y2,
                   colour);
    if (*dashes != '\0') {
      out_ += format(" stroke-dasharray=\"%s\"", dashes);
    }
    out_ += "/>\n";
  }

  void axes() {
    const double step = round_step(gib_, 5);
    for (double gib = 0; gib <= gib_ * 1.001; gib += step) {
      line(kLeft, y(gib), kWidth - kRight, y(gib), "#dddddd", "");
      text(kLeft - 8, y(gib) + 4, "end", format("%g", gib));
    }
    const double wide = round_step(steps_, 8);
    for (double at = 0; at <= steps_; at += wide) {
      line(x(at), top_ + kPanel, x(at), top_ + kPanel + 5, "#888888", "");
      text(x(at), top_ + kPanel + 19, "middle", format("%g", at));
    }
    line(kLeft, top_ + kPanel, kWidth - kRight, top_ + kPanel, "#888888", "");
    const double middle = top_ + kPanel / 2;
    out_ += format(
        "<text x=\"26\" y=\"%g\" text-anchor=\"middle\" transform=\"rotate(-90 26 %g)\">GiB"
        "</text>\n",
        middle, middle);
  }

  /// The mean of `value` in each column, forwards or backwards.
  [[nodiscard]] std::string points(const std::vector<Sample>& samples,
                                   const std::function<double(const Sample&)>& value,
                                   bool backwards) const {
    const std::size_t columns = std::min(kColumns, samples.size());
    std::vector<std::string> out;
    for (std::size_t c = 0; c < columns; ++c) {
      const std::size_t first = c * samples.size() / columns;
      const std::size_t last = (c + 1) * samples.size() / columns;
      double sum = 0;
      for (std::size_t i = first; i < last; ++i) {
        sum += value(samples[i]);
      }
      const double mean = sum / static_cast<double>(last - first) / (1U << 30U);
      out.push_back(format("%.1f,%.1f ", x(static_cast<double>(first + last) / 2), y(mean)));
    }
    if (backwards) {
      std::reverse(out.begin(), out.end());
    }
    std::string joined;
    for (const std::string& point : out) {
      joined += point;
    }
    return joined;
  }

  double steps_;
  double gib_;
  double height_;
  double top_ = kTop;
  std::string out_;
};

}  // namespace

std::string memory_svg(const std::vector<Chart>& charts, const std::vector<Tenant>& tenants,
                       std::uint64_t pool_bytes, const std::string& device) {
  const double pool_gib = static_cast<double>(pool_bytes) / (1U << 30U);
  std::size_t steps = 0;
  double highest = pool_gib;
  for (const Chart& chart : charts) {
    steps = std::max(steps, chart.result->samples.size());
    for (const Sample& sample : chart.result->samples) {
      highest = std::max(highest, static_cast<double>(sample.gpu) / (1U << 30U));
    }
  }
  Drawing drawing(steps, highest * 1.05, charts.size());
  drawing.legend(tenants, device);
  for (std::size_t i = 0; i < charts.size(); ++i) {
    drawing.chart(i, charts[i], pool_gib);
  }
  return drawing.finish();
}

}  // namespace kvcached::demo
