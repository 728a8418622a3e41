// kvcached: runs programs with the library in front, and shows the pools.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policy/changes.hpp"
#include "tools/verbs.hpp"

namespace kvcached::tools {

int complain(std::string_view line) noexcept {
  try {
    std::string text = "kvcached: ";
    text.append(line.substr(0, line.find_last_not_of('\n') + 1));
    for (char& c : text) {
      if (c == '\n') c = ' ';
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    }
    text += '\n';
    std::fputs(text.c_str(), stderr);
  } catch (...) {
    std::fputs("kvcached: out of memory\n", stderr);
  }
  return kBadUse;
}

int flush(int code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  complain(fmt::format("standard output: {}", std::strerror(errno)));
  std::clearerr(stdout);
  return kRefused;
}

namespace {

constexpr std::size_t kShownError = 200;

struct Usage {
  std::string_view verbs;
  std::string_view text;
};
constexpr std::array<Usage, 8> kUsage{{
    {"run", "  kvcached run [flags] -- command…   start a program with its KV cache elastic\n"},
    {"stat",
     "  kvcached stat [--json] [--gpu G]   the pools, who is charged what, who wants what\n"
     "      [--watch [SECONDS]]            the same again and again\n"
     "      [--history]                    their last ten minutes\n"
     "      [--dir D]                      those of another directory\n"},
    {"set",
     "  kvcached set NAME min=SIZE max=SIZE weight=N\n"
     "                                     changes limits of a tenant, at once\n"},
    {"trim", "  kvcached trim NAME                 a tenant gives back all it holds idle, now\n"},
    {"limit",
     "  kvcached limit SIZE                the pool's size, as 40GiB or as a share of the GPU\n"},
    {"set trim limit",
     "      set, trim and limit: [--gpu GPU] where there are several pools, as stat names them;\n"
     "      [--wait 2s] for the members to do it; [--dir D]\n"},
    {"help",
     "  kvcached help [VERB|settings]      this text; every flag of run and its variable\n"},
    {"version", "  kvcached version\n"},
}};

// Of all verbs where none is named.
int print_usage(std::string_view verb) {
  if (verb == "run" || verb == "settings") return help_settings();
  fmt::print("kvcached: lets the engines on one GPU share the memory of their KV caches\n\n");
  for (const Usage& usage : kUsage) {
    if (usage.verbs.find(verb) != std::string_view::npos) fmt::print("{}", usage.text);
  }
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
  help_verb->add_option("topic", topic)
      ->check(
          CLI::IsMember({"settings", "run", "stat", "set", "trim", "limit", "help", "version"}));

  CLI::App* version_verb = app.add_subcommand("version");
  version_verb->set_help_flag();

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return complain(fmt::format("{}; try: kvcached help", shown(error.what(), kShownError)));
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
  return print_usage(topic);
}

int main_of(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  if (arguments.empty()) {
    return complain(
        "no verb given: run, stat, set, trim, limit, help or version; try: kvcached help");
  }
  const std::string& verb = arguments.front();
  const auto asks_help = [](const std::string& word) { return word == "--help" || word == "-h"; };
  if (asks_help(verb)) return print_usage({});
  if (verb == "--version") return version();
  if (std::none_of(kUsage.begin(), kUsage.end(),
                   [&](const Usage& usage) { return usage.verbs == verb; })) {
    return complain(fmt::format("no verb is named {}; try: kvcached help", shown(verb)));
  }
  // Behind the first word of `run` a flag may be the command's.
  const auto end = verb == "run" && arguments.size() > 1 ? arguments.begin() + 2 : arguments.end();
  if (std::any_of(arguments.begin() + 1, end, asks_help)) return print_usage(verb);
  if (verb == "run") return run({arguments.begin() + 1, arguments.end()});
  return dispatch(argc, argv);
}

}  // namespace
}  // namespace kvcached::tools

int main(int argc, char** argv) {
  using namespace kvcached::tools;
  int code = kRefused;
  try {
    code = main_of(argc, argv);
  } catch (const std::exception& error) {
    complain(error.what());
    std::clearerr(stdout);  // if it was that, it is said
  }
  return flush(code);
}
