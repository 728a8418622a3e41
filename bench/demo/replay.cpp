#include "bench/demo/replay.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <thread>

namespace kvcached::demo {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kPatience{60000};

class Run {
 public:
  Run(const ReplaySettings& settings, const Gpu& gpu) : settings_(settings), gpu_(gpu) {}

  ReplayResult run() {
    start();
    std::puts("run      step | engine: MiB, requests running + waiting | ... | GPU memory in use");
    const Clock::time_point begin = Clock::now();
    while (step()) {
    }
    result_.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    finish();
    return std::move(result_);
  }

 private:
  [[noreturn]] void fail(std::size_t i, const std::string& what) {
    std::string text = settings_.mode + " run, engine " + settings_.tenants[i].name + ": " + what;
    std::ifstream log(engines_[i]->log());
    std::vector<std::string> lines;
    for (std::string line; std::getline(log, line);) {
      lines.push_back(line);
    }
    for (std::size_t n = lines.size() - std::min<std::size_t>(lines.size(), 10); n < lines.size();
         ++n) {
      text += "\n  " + lines[n];
    }
    throw std::runtime_error(text);
  }

  Json expect(std::size_t i, const std::string& event) {
    const std::optional<std::string> line = engines_[i]->line(kPatience);
    if (interrupted()) {
      throw std::runtime_error("interrupted");
    }
    if (!line) {
      fail(i, "no answer");
    }
    Json json = Json::parse(*line, nullptr, false);
    if (json.value("event", "") != event) {
      fail(i, *line);
    }
    return json;
  }

  void send(std::size_t i) {
    if (!engines_[i]->send('s')) {
      fail(i, "gone");
    }
  }

  void start() {
    for (const Tenant& tenant : settings_.tenants) {
      std::vector<std::string> command = settings_.command;
      command.insert(command.end(), {"--name", tenant.name, "--trace", tenant.trace});
      Environment environment = settings_.environment;
      environment["KVCACHED_NAME"] = tenant.name;
      engines_.push_back(std::make_unique<Child>(
          command, environment,
          settings_.logs + "/" + settings_.mode + "-" + tenant.name + ".log"));
    }
    for (std::size_t i = 0; i < engines_.size(); ++i) {
      expect(i, "ready");
    }
    before_ = gpu_.used_bytes();
    for (std::size_t i = 0; i < engines_.size(); ++i) {
      send(i);
    }
    for (std::size_t i = 0; i < engines_.size(); ++i) {
      const Json line = expect(i, "start");
      if (line.value("mode", "") != settings_.mode) {
        fail(i, "runs " + line.value("mode", "") + ": " + line.value("reason", ""));
      }
    }
  }

  /// False when all are done.
  bool step() {
    // After a slow step the next ones do not hurry: kvcached's own times are those of a clock.
    std::this_thread::sleep_until(last_step_ + milliseconds(settings_.step_ms));
    last_step_ = Clock::now();
    for (std::size_t i = 0; i < engines_.size(); ++i) {
      send(i);
    }
    Sample sample;
    std::vector<Json> lines;
    bool idle = true;
    for (std::size_t i = 0; i < engines_.size(); ++i) {
      lines.push_back(expect(i, "step"));
      sample.resident.push_back(lines.back().at("resident_bytes"));
      idle = idle && lines.back().at("idle");
    }
    const std::uint64_t used = gpu_.used_bytes();
    sample.gpu = used > before_ ? used - before_ : 0;
    if (Clock::now() >= next_print_ || idle) {
      print(lines, sample);
      next_print_ = Clock::now() + std::chrono::seconds(1);
    }
    result_.samples.push_back(std::move(sample));
    return !idle;
  }

  void print(const std::vector<Json>& lines, const Sample& sample) const {
    std::printf("%-7s %5zu", settings_.mode.c_str(), result_.samples.size());
    for (std::size_t i = 0; i < lines.size(); ++i) {
      std::printf(" | %s %5llu %3u + %-3u", settings_.tenants[i].name.c_str(),
                  static_cast<unsigned long long>(sample.resident[i] >> 20U),
                  lines[i].at("running").get<unsigned>(), lines[i].at("waiting").get<unsigned>());
    }
    std::printf(" | GPU %5llu MiB\n", static_cast<unsigned long long>(sample.gpu >> 20U));
    std::fflush(stdout);
  }

  void finish() {
    for (const auto& engine : engines_) {
      engine->end_input();
    }
    for (std::size_t i = 0; i < engines_.size(); ++i) {
      const Json line = expect(i, "summary");
      TenantResult tenant;
      tenant.requests = line.at("requests");
      tenant.finished = line.at("finished");
      tenant.preemptions = line.at("preemptions");
      tenant.tokens_verified = line.at("tokens_verified");
      tenant.rows_wrong = line.at("rows_wrong");
      tenant.waits = line.at("waits").get<std::vector<std::uint64_t>>();
      result_.tenants.push_back(std::move(tenant));
      const int code = engines_[i]->wait();
      if (code != 0 && code != 1) {  // 1: wrong data, which the summary tells
        fail(i, "exit code " + std::to_string(code));
      }
    }
  }

  const ReplaySettings& settings_;
  const Gpu& gpu_;
  std::vector<std::unique_ptr<Child>> engines_;
  std::uint64_t before_ = 0;
  Clock::time_point last_step_;
  Clock::time_point next_print_;
  ReplayResult result_;
};

}  // namespace

ReplayResult replay(const ReplaySettings& settings, const Gpu& gpu) {
  return Run(settings, gpu).run();
}

}  // namespace kvcached::demo
