#include "bench/chart/chart.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace kvcached::chart {
namespace {

constexpr double kWidth = 960;
constexpr double kLeft = 84;
constexpr double kRight = 24;
constexpr double kTop = 64;
constexpr double kPanel = 220;  // height of one panel's area
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
  explicit Drawing(const Chart& chart) : chart_(chart) {
    for (const Panel& panel : chart.panels) {
      samples_ = std::max(samples_, panel.line.size());
      highest_ = std::max(highest_, panel.limit);
      for (const double value : panel.line) highest_ = std::max(highest_, value);
      for (std::size_t i = 0; i < panel.line.size(); ++i) {
        double sum = 0;
        for (const auto& area : panel.areas) sum += area[i];
        highest_ = std::max(highest_, sum);
      }
    }
    highest_ *= 1.05;
    height_ = kTop + static_cast<double>(chart.panels.size()) * (kPanel + kGap) - kGap + kBottom;
    out_ = format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" "
        "height=\"%g\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222222\">\n"
        "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
        kWidth, height_, kWidth, height_);
  }

  std::string finish() {
    legend();
    for (std::size_t i = 0; i < chart_.panels.size(); ++i) draw_panel(i);
    text((kLeft + kWidth - kRight) / 2, height_ - 14, "middle", chart_.time);
    return out_ + "</svg>\n";
  }

 private:
  [[nodiscard]] double x(double sample) const {
    const double all = static_cast<double>(std::max<std::size_t>(samples_, 1));
    return kLeft + sample / all * (kWidth - kLeft - kRight);
  }
  [[nodiscard]] double y(double gib) const { return top_ + kPanel - gib / highest_ * kPanel; }

  void legend() {
    text(kLeft, 22, "start", chart_.title, 15);
    double x = kLeft;
    for (std::size_t i = 0; i < chart_.areas.size(); ++i) {
      out_ += format("<rect x=\"%g\" y=\"33\" width=\"14\" height=\"11\" fill=\"%s\"/>\n", x,
                     kColours.at(i % kColours.size()));
      text(x + 20, 43, "start", chart_.areas[i]);
      x += 40 + 7.5 * static_cast<double>(chart_.areas[i].size());
    }
    line(x, 38, x + 18, 38, "#111111", "");
    text(x + 24, 43, "start", chart_.line);
    x += 50 + 6.2 * static_cast<double>(chart_.line.size());
    line(x, 38, x + 18, 38, "#cc3311", "6 4");
    text(x + 24, 43, "start", chart_.limit);
  }

  void draw_panel(std::size_t place) {
    const Panel& panel = chart_.panels[place];
    top_ = kTop + static_cast<double>(place) * (kPanel + kGap) + 14;
    text(kLeft, top_ - 6, "start", panel.title);
    axes();
    std::vector<double> below(panel.line.size());
    for (std::size_t i = 0; i < panel.areas.size(); ++i) {
      std::vector<double> above = below;
      for (std::size_t k = 0; k < above.size(); ++k) above[k] += panel.areas[i][k];
      const std::string upper = points(above, false) + points(below, true);
      out_ += "<polygon fill=\"" + std::string(kColours.at(i % kColours.size())) +
              "\" fill-opacity=\"0.85\" points=\"" + upper + "\"/>\n";
      below = std::move(above);
    }
    out_ += "<polyline fill=\"none\" stroke=\"#111111\" stroke-width=\"1.2\" points=\"" +
            points(panel.line, false) + "\"/>\n";
    line(kLeft, y(panel.limit), kWidth - kRight, y(panel.limit), "#cc3311", "6 4");
  }

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
    const double step = round_step(highest_, 5);
    for (double gib = 0; gib <= highest_ * 1.001; gib += step) {
      line(kLeft, y(gib), kWidth - kRight, y(gib), "#dddddd", "");
      text(kLeft - 8, y(gib) + 4, "end", format("%g", gib));
    }
    const double all = static_cast<double>(samples_) * chart_.per_sample;
    const double wide = round_step(all, 8);
    for (double at = 0; at <= all; at += wide) {
      line(x(at / chart_.per_sample), top_ + kPanel, x(at / chart_.per_sample), top_ + kPanel + 5,
           "#888888", "");
      text(x(at / chart_.per_sample), top_ + kPanel + 19, "middle", format("%g", at));
    }
    line(kLeft, top_ + kPanel, kWidth - kRight, top_ + kPanel, "#888888", "");
    const double middle = top_ + kPanel / 2;
    out_ += format(
        "<text x=\"26\" y=\"%g\" text-anchor=\"middle\" transform=\"rotate(-90 26 %g)\">GiB"
        "</text>\n",
        middle, middle);
  }

  /// The mean of each column, forwards or backwards.
  [[nodiscard]] std::string points(const std::vector<double>& values, bool backwards) const {
    const std::size_t columns = std::min(kColumns, values.size());
    std::vector<std::string> out;
    for (std::size_t c = 0; c < columns; ++c) {
      const std::size_t first = c * values.size() / columns;
      const std::size_t last = (c + 1) * values.size() / columns;
      double sum = 0;
      for (std::size_t i = first; i < last; ++i) sum += values[i];
      const double mean = sum / static_cast<double>(last - first);
      out.push_back(format("%.1f,%.1f ", x(static_cast<double>(first + last) / 2), y(mean)));
    }
    if (backwards) std::reverse(out.begin(), out.end());
    std::string joined;
    for (const std::string& point : out) joined += point;
    return joined;
  }

  const Chart& chart_;
  std::size_t samples_ = 0;
  double highest_ = 0;
  double height_ = 0;
  double top_ = kTop;
  std::string out_;
};

}  // namespace

std::string draw(const Chart& chart) { return Drawing(chart).finish(); }

}  // namespace kvcached::chart
