#include "bench/demo/summary.hpp"

#include <algorithm>
#include <cstdio>

#include "bench/engine/percentile.hpp"

namespace kvcached::demo {
namespace {

using engine::percentile;

constexpr double kLeastSaved = 0.30;

std::string number(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

std::string mib(double bytes) { return number(bytes / (1U << 20U), 0) + " MiB"; }

std::string thousands(std::uint64_t value) {
  std::string text = std::to_string(value);
  for (int at = static_cast<int>(text.size()) - 3; at > 0; at -= 3) {
    text.insert(static_cast<std::size_t>(at), ",");
  }
  return text;
}

std::string row(const std::string& what, const std::string& fixed, const std::string& elastic) {
  char text[160];
  std::snprintf(text, sizeof text, "%-40s %16s %16s\n", what.c_str(), fixed.c_str(),
                elastic.c_str());
  return text;
}

}  // namespace

Summary summarise(const ReplayResult& result) {
  Summary out;
  std::vector<std::uint64_t> waits;
  for (const TenantResult& tenant : result.tenants) {
    out.requests += tenant.requests;
    out.finished += tenant.finished;
    out.preemptions += tenant.preemptions;
    out.tokens_verified += tenant.tokens_verified;
    out.rows_wrong += tenant.rows_wrong;
    waits.insert(waits.end(), tenant.waits.begin(), tenant.waits.end());
  }
  for (const Sample& sample : result.samples) {
    out.mean_bytes += static_cast<double>(sample.gpu) / static_cast<double>(result.samples.size());
    out.peak_bytes = std::max(out.peak_bytes, sample.gpu);
  }
  out.wait_p50 = percentile(waits, 0.50);
  out.wait_p99 = percentile(waits, 0.99);
  out.steps = result.samples.size();
  out.seconds = result.seconds;
  return out;
}

double saved_share(const Summary& fixed, const Summary& elastic) {
  return fixed.mean_bytes > 0 ? 1.0 - elastic.mean_bytes / fixed.mean_bytes : 0.0;
}

std::string table(const ReplayResult& fixed, const ReplayResult& elastic,
                  const std::vector<Tenant>& tenants) {
  const Summary a = summarise(fixed);
  const Summary b = summarise(elastic);
  const auto count = [](std::uint64_t n) { return thousands(n); };
  std::string out = row("", "static thirds", "one elastic pool") + std::string(74, '-') + "\n";
  out += row("requests done", count(a.finished) + "/" + count(a.requests),
             count(b.finished) + "/" + count(b.requests));
  out += row("GPU memory, mean", mib(a.mean_bytes), mib(b.mean_bytes));
  out += row("GPU memory, peak", mib(static_cast<double>(a.peak_bytes)),
             mib(static_cast<double>(b.peak_bytes)));
  out += row("memory saved, mean", "", number(100 * saved_share(a, b), 1) + " %");
  out += row("wait for the first token, p50 (steps)", count(a.wait_p50), count(b.wait_p50));
  out += row("wait for the first token, p99 (steps)", count(a.wait_p99), count(b.wait_p99));
  for (std::size_t i = 0; i < tenants.size(); ++i) {
    out += row("  of " + tenants[i].name + ", p99", count(percentile(fixed.tenants[i].waits, 0.99)),
               count(percentile(elastic.tenants[i].waits, 0.99)));
  }
  out += row("preemptions", count(a.preemptions), count(b.preemptions));
  out += row("steps", count(a.steps), count(b.steps));
  out += row("tokens verified", count(a.tokens_verified), count(b.tokens_verified));
  out += row("wrong rows of K or V", count(a.rows_wrong), count(b.rows_wrong));
  out += row("time", number(a.seconds, 1) + " s", number(b.seconds, 1) + " s");
  return out;
}

std::vector<std::string> failures(const Summary& fixed, const Summary& elastic) {
  std::vector<std::string> out;
  if (fixed.rows_wrong + elastic.rows_wrong != 0) {
    out.emplace_back("an engine read data that it had not written");
  }
  if (fixed.tokens_verified == 0 || elastic.tokens_verified == 0) {
    out.emplace_back("nothing was verified");
  }
  if (fixed.finished != fixed.requests || elastic.finished != elastic.requests) {
    out.emplace_back("some requests were not done");
  }
  if (saved_share(fixed, elastic) < kLeastSaved) {
    out.emplace_back("the elastic run saved less than 30 % of the memory");
  }
  if (elastic.wait_p99 >= fixed.wait_p99) {
    out.emplace_back("the elastic run's p99 wait is not below the static one's");
  }
  return out;
}

}  // namespace kvcached::demo
