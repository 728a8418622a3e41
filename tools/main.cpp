// kvcached: runs programs with the library in front, and shows the pools.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

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
    "  kvcached stat [--json] [--dir D]   the pools, who is charged what, who wants what\n"
    "  kvcached help [settings]           this text; every flag of run and its variable\n"
    "  kvcached version\n";

int print_usage() {
  fmt::print("{}", kUsage);
  return 0;
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
  stat_verb->add_option("--dir", stat_options.directory)->type_name("DIRECTORY");

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
  if (*stat_verb) return stat(stat_options);
  if (*version_verb) return version();
  return topic == "settings" ? help_settings() : print_usage();
}

int main_of(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  if (arguments.empty()) {
    return complain("no verb given: run, stat, help or version; try: kvcached help");
  }
  const std::string& verb = arguments.front();
  const bool asks_help = arguments.size() > 1 && arguments[1] == "--help";
  if (verb == "--help" || verb == "-h" || (verb != "run" && asks_help)) return print_usage();
  if (verb == "--version") return version();
  if (verb == "run")
    return asks_help ? help_settings() : run({arguments.begin() + 1, arguments.end()});
  constexpr std::array<std::string_view, 3> others{"stat", "help", "version"};
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
