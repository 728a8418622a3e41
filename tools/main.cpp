// kvcached: runs programs with the library in front, and shows the pools.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policy/changes.hpp"
#include "tools/verbs.hpp"

namespace kvcached::tools {

int complain(std::string_view line) {
  std::string text(line.substr(0, line.find_last_not_of('\n') + 1));
  std::replace(text.begin(), text.end(), '\n', ' ');
  fmt::print(stderr, "kvcached: {}\n", text);
  return kBadUse;
}

namespace {

constexpr std::string_view kUsage =
    "kvcached: lets the engines on one GPU share the memory of their KV caches\n"
    "\n"
    "  kvcached run [flags] -- command…   start a program with its KV cache elastic\n"
    "  kvcached stat [--json] [--gpu G]   the pools, who is charged what, who wants what\n"
    "      [--watch [SECONDS]]            the same again and again\n"
    "      [--history]                    their last ten minutes\n"
    "  kvcached set NAME min=SIZE max=SIZE weight=N\n"
    "                                     changes limits of a tenant, at once\n"
    "  kvcached trim NAME                 a tenant gives back all it holds idle, now\n"
    "  kvcached limit SIZE                the pool's size, as 40GiB or as a share of the GPU\n"
    "      these three: [--gpu GPU] where there are several pools, as stat names them;\n"
    "      [--wait 2s] for the members to do it; [--dir D]\n"
    "  kvcached help [settings]           this text; every flag of run and its variable\n"
    "  kvcached version\n";

int print_usage() {
  fmt::print("{}", kUsage);
  return 0;
}

// "2" or "0.5", or with the unit.
std::optional<Duration> seconds(const std::string& text) {
  const std::optional<Duration> plain = parse_duration(text + "s");
  return plain ? plain : parse_duration(text);
}

// Everything but `run`, whose arguments end in a command that is none of our business.
int dispatch(int argc, char** argv) {
  CLI::App app;
  app.set_help_flag();
  app.require_subcommand(1);

  StatOptions stat_options;
  CLI::App* stat_verb = app.add_subcommand("stat");
  stat_verb->set_help_flag();
  stat_verb->add_flag("--json", stat_options.json);
  stat_verb->add_flag("--history", stat_options.history);
  stat_verb->add_option("--gpu", stat_options.gpu)->type_name("GPU");
  std::string every;
  CLI::Option* watch =
      stat_verb->add_option("--watch", every)->type_name("SECONDS")->expected(0, 1);
  stat_verb->add_option("--dir", stat_options.directory)->type_name("DIRECTORY");

  ControlOptions control;
  std::string wait = "2s";
  const auto add_control = [&](const char* name) {
    CLI::App* verb = app.add_subcommand(name);
    verb->set_help_flag();
    verb->add_option("--dir", control.directory)->type_name("DIRECTORY");
    verb->add_option("--gpu", control.gpu)->type_name("GPU");
    verb->add_option("--wait", wait)->type_name("DURATION");
    return verb;
  };
  std::string tenant;
  std::vector<std::string> changes;
  std::string size;
  CLI::App* set_verb = add_control("set");
  set_verb->add_option("NAME", tenant)->required();
  set_verb->add_option("CHANGE", changes);
  CLI::App* trim_verb = add_control("trim");
  trim_verb->add_option("NAME", tenant)->required();
  CLI::App* limit_verb = add_control("limit");
  limit_verb->add_option("SIZE", size)->required();

  std::string topic;
  CLI::App* help_verb = app.add_subcommand("help");
  help_verb->set_help_flag();
  help_verb->add_option("topic", topic)->check(CLI::IsMember({"settings"}));

  CLI::App* version_verb = app.add_subcommand("version");
  version_verb->set_help_flag();

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return complain(fmt::format("{}; try: kvcached help", error.what()));
  }
  if (*stat_verb) {
    if (*watch) stat_options.every = every.empty() ? std::chrono::seconds(1) : seconds(every);
    constexpr Duration kOften = std::chrono::milliseconds(100);
    if (*watch && stat_options.every.value_or(Duration::zero()) < kOften) {
      return complain(fmt::format(
          "stat: --watch {}: not a time; write seconds from 0.1 to 3600, e.g. 2", shown(every)));
    }
    return stat(stat_options);
  }
  const std::optional<Duration> patience = parse_duration(wait);
  if (!patience) {
    return complain(
        fmt::format("--wait {}: not a duration; write e.g. 2s, 500ms or 0, at most "
                    "an hour",
                    shown(wait)));
  }
  control.wait = *patience;
  if (*set_verb) return set(tenant, changes, control);
  if (*trim_verb) return trim(tenant, control);
  if (*limit_verb) return limit(size, control);
  if (*version_verb) return version();
  return topic == "settings" ? help_settings() : print_usage();
}

int main_of(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  if (arguments.empty()) {
    return complain(
        "no verb given: run, stat, set, trim, limit, help or version; try: kvcached help");
  }
  const std::string& verb = arguments.front();
  const bool asks_help = arguments.size() > 1 && arguments[1] == "--help";
  if (verb == "--help" || verb == "-h" || (verb != "run" && asks_help)) return print_usage();
  if (verb == "--version") return version();
  if (verb == "run")
    return asks_help ? help_settings() : run({arguments.begin() + 1, arguments.end()});
  constexpr std::array<std::string_view, 6> others{"stat",  "set",  "trim",
                                                   "limit", "help", "version"};
  if (std::find(others.begin(), others.end(), verb) == others.end()) {
    return complain(fmt::format("no verb is named {}; try: kvcached help", verb));
  }
  return dispatch(argc, argv);
}

}  // namespace
}  // namespace kvcached::tools

int main(int argc, char** argv) {
  try {
    return kvcached::tools::main_of(argc, argv);
  } catch (const std::exception& error) {
    return kvcached::tools::complain(error.what());
  }
}
