#include "bench/engine/server.hpp"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "bench/engine/percentile.hpp"

namespace kvcached::engine {
namespace {

using Json = nlohmann::ordered_json;

void print(const Json& line) { std::cout << line.dump() << std::endl; }

std::uint64_t tokens_checked(const Counters& counters, const ModelShape& shape) {
  return counters.rows_checked / (std::uint64_t{2} * shape.layers);
}

}  // namespace

Server::Server(const Options& options)
    : options_(options), pace_(options.lockstep, options.step_ms), device_(options.device) {
  const std::vector<Request> trace = read_trace(options.trace, options.trace_settings);
  arrivals_.assign(trace.begin(), trace.end());
  requests_ = trace.size();
}

bool Server::idle() const {
  return arrivals_.empty() && scheduler_->running() == 0 && scheduler_->waiting() == 0;
}

void Server::start() {
  cache_ = make_cache(options_);
  if (cache_.block_count == 0) {
    throw std::runtime_error("--kv-bytes holds no block");
  }
  model_ = std::make_unique<Model>(device_, options_.shape, cache_.buffers);
  scheduler_ = std::make_unique<Scheduler>(options_.scheduler, *cache_.blocks, cache_.block_count);
  Json line{{"event", "start"},
            {"name", options_.name},
            {"device", device_.name()},
            {"mode", cache_.elastic ? "elastic" : "static"}};
  if (!cache_.elastic) {
    line["reason"] = cache_.reason;
  }
  line["blocks"] = cache_.block_count;
  line["bytes_per_block"] = options_.shape.whole_block_bytes();
  line["requests"] = requests_;
  print(line);
}

void Server::step() {
  while (!arrivals_.empty() && arrivals_.front().arrival <= step_) {
    scheduler_->arrive(arrivals_.front());
    arrivals_.pop_front();
  }
  const Plan plan = scheduler_->plan(step_);
  model_->launch(plan);
  const std::uint64_t resident = cache_.blocks->resident_bytes();
  // Before the kernels are done, as an engine that schedules ahead does.
  scheduler_->launched();
  device_.synchronize();
  resident_sum_ += static_cast<double>(resident);
  resident_peak_ = std::max(resident_peak_, resident);
  if (step_ % options_.report_every == 0) {
    report_step();
  }
  ++step_;
}

bool Server::run() {
  print({{"event", "ready"}, {"name", options_.name}, {"device", device_.name()}});
  if (options_.lockstep && !pace_.next()) {
    return true;
  }
  start();
  while ((options_.lockstep || !idle()) && (options_.steps == 0 || step_ < options_.steps) &&
         pace_.next()) {
    step();
  }
  const std::uint64_t unfinished = arrivals_.size() + scheduler_->running() + scheduler_->waiting();
  const Plan rest = scheduler_->abandon();
  model_->launch(rest);
  scheduler_->launched();
  const Counters counters = model_->counters();
  report_summary(counters, unfinished);
  return counters.rows_wrong == 0;
}

void Server::report_step() {
  const Counters counters = model_->counters();
  const SchedulerStats& stats = scheduler_->stats();
  print({{"event", "step"},
         {"name", options_.name},
         {"step", step_},
         {"running", scheduler_->running()},
         {"waiting", scheduler_->waiting()},
         {"live_blocks", scheduler_->live_blocks()},
         {"resident_bytes", cache_.blocks->resident_bytes()},
         {"finished", stats.finished},
         {"preemptions", stats.preemptions},
         {"tokens_verified", tokens_checked(counters, options_.shape)},
         {"rows_wrong", counters.rows_wrong},
         {"lag_ms", pace_.lag_ms()},
         {"idle", idle()}});
}

void Server::report_summary(const Counters& counters, std::uint64_t unfinished) {
  const SchedulerStats& stats = scheduler_->stats();
  Json line{{"event", "summary"},
            {"name", options_.name},
            {"mode", cache_.elastic ? "elastic" : "static"},
            {"steps", step_},
            {"requests", requests_},
            {"finished", stats.finished},
            {"unfinished", unfinished},
            {"rejected", stats.rejected},
            {"preemptions", stats.preemptions},
            {"tokens_written", stats.tokens},
            {"tokens_verified", tokens_checked(counters, options_.shape)},
            {"rows_wrong", counters.rows_wrong},
            {"interrupted", Pace::interrupted()},
            {"resident_mean_bytes", step_ == 0 ? 0.0 : resident_sum_ / static_cast<double>(step_)},
            {"resident_peak_bytes", resident_peak_},
            {"wait_p50", percentile(stats.waits, 0.50)},
            {"wait_p99", percentile(stats.waits, 0.99)},
            {"waits", stats.waits}};
  if (counters.rows_wrong != 0) {
    line["first_wrong"] = {{"seed", counters.wrong_seed},
                           {"layer", counters.wrong_layer},
                           {"part", counters.wrong_value != 0 ? "V" : "K"},
                           {"position", counters.wrong_position},
                           {"block", counters.wrong_block}};
  }
  print(line);
}

}  // namespace kvcached::engine
