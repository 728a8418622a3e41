// `kvcached run`: what the started program finds in its environment, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "policy/settings.hpp"
#include "tests/cli/command.hpp"

namespace kvcached::test {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

// The library's path as the command finds it.
std::string library() {
  return std::filesystem::canonical(build_directory() + "/libkvcached.so").string();
}

// What a program started with these flags prints for the variable.
std::string variable_under(const std::vector<std::string>& flags, const std::string& name,
                           const Variables& variables = {}) {
  std::vector<std::string> arguments{"run"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  for (const char* word : {"--", "/bin/sh", "-c"}) arguments.emplace_back(word);
  arguments.push_back("printf %s \"$" + name + "\"");
  const Outcome outcome = kvcached(arguments, variables);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  return outcome.out;
}

void expect_refusal(const Outcome& outcome, const std::string& part) {
  expect_line(outcome, 2, part);
}

TEST(RunUninstrumented, PreloadsTheLibraryBesideTheCommand) {
  EXPECT_EQ(variable_under({}, "LD_PRELOAD"), library());
}

TEST(RunUninstrumented, KeepsWhatElseIsPreloaded) {
  EXPECT_EQ(variable_under({}, "LD_PRELOAD", {{"LD_PRELOAD", "libc.so.6"}}),
            library() + ":libc.so.6");
}

TEST(RunUninstrumented, EveryFlagSetsItsVariable) {
  const Variables values{{"--pool", "8GiB"},   {"--name", "chat"}, {"--min", "1GiB"},
                         {"--max", "50%"},     {"--weight", "7"},  {"--match", "size>=256MiB"},
                         {"--stripe", "8MiB"}, {"--dir", "/tmp"}};
  std::size_t seen = 0;
  for (const SettingInfo& info : setting_infos()) {
    const auto value = values.find(std::string(info.flag));
    if (value == values.end()) continue;
    ++seen;
    const std::string variable(info.variable);
    EXPECT_EQ(variable_under({value->first, value->second}, variable), value->second);
    EXPECT_EQ(variable_under({value->first + "=" + value->second}, variable), value->second);
  }
  EXPECT_EQ(seen, values.size());
}

TEST(RunUninstrumented, AFlagWinsOverTheEnvironment) {
  EXPECT_EQ(variable_under({"--pool", "8GiB"}, "KVCACHED_POOL", {{"KVCACHED_POOL", "4GiB"}}),
            "8GiB");
}

TEST(RunUninstrumented, TheCommandsOwnFlagsAreItsOwn) {
  const Outcome with_mark = kvcached({"run", "--", "/bin/echo", "--pool", "--", "x"});
  EXPECT_EQ(with_mark.out, "--pool -- x\n") << with_mark.err;
  const Outcome without = kvcached({"run", "--pool", "8GiB", "/bin/echo", "--pool", "-n"});
  EXPECT_EQ(without.out, "--pool -n\n") << without.err;
}

TEST(RunUninstrumented, PassesTheExitCodeOn) {
  EXPECT_EQ(kvcached({"run", "--", "/bin/sh", "-c", "exit 41"}).status, 41);
}

TEST(RunUninstrumented, FindsTheCommandOnThePath) {
  EXPECT_EQ(kvcached({"run", "--", "echo", "found"}).out, "found\n");
}

TEST(RunUninstrumented, WorksAsInstalled) {
  const Folder prefix;
  std::filesystem::create_directories(prefix / "bin");
  std::filesystem::create_directories(prefix / "lib");
  std::filesystem::copy(build_directory() + "/kvcached", prefix / "bin/kvcached");
  std::filesystem::copy(library(), prefix / "lib/libkvcached.so");
  const Outcome outcome = run_program(prefix / "bin/kvcached",
                                      {"run", "--", "/bin/sh", "-c", "printf %s \"$LD_PRELOAD\""});
  EXPECT_EQ(outcome.out, std::filesystem::canonical(prefix / "lib/libkvcached.so").string())
      << outcome.err;
}

TEST(Run, SaysWhereItLookedForTheLibrary) {
  const Folder alone;
  std::filesystem::copy(build_directory() + "/kvcached", alone / "kvcached");
  expect_refusal(run_program(alone / "kvcached", {"run", "--", "/bin/true"}), "libkvcached.so");
}

TEST(Run, RefusesAPathThatThePreloadCannotName) {
  const Folder folder;
  std::filesystem::create_directories(folder / "a b");
  std::filesystem::copy(build_directory() + "/kvcached", folder / "a b/kvcached");
  write_file(folder / "a b/libkvcached.so", "");
  expect_refusal(run_program(folder / "a b/kvcached", {"run", "--", "/bin/true"}), "space");
}

// Passed over by the loader, it would leave the command without the library.
TEST(Run, RefusesALibraryThatCannotBeLoaded) {
  const Folder folder;
  std::filesystem::copy(build_directory() + "/kvcached", folder / "kvcached");
  const auto refused = [&] {
    expect_refusal(run_program(folder / "kvcached", {"run", "--", "/bin/true"}),
                   "libkvcached.so: not a library that can be loaded; install it again");
  };
  std::filesystem::create_directory(folder / "libkvcached.so");
  refused();
  std::filesystem::remove(folder / "libkvcached.so");
  for (const char* text : {"", "no library"}) {
    write_file(folder / "libkvcached.so", text);
    refused();
  }
}

TEST(Run, RefusesABadFlag) {
  expect_refusal(kvcached({"run", "--banana", "1", "--", "/bin/true"}), "--banana");
}

TEST(Run, RefusesABadValue) {
  expect_refusal(kvcached({"run", "--pool", "banana", "--", "/bin/true"}), "banana");
  expect_refusal(kvcached({"run", "--max", "8", "--", "/bin/true"}),
                 "run: KVCACHED_MAX=8: not a size of at least 2MiB; write e.g. 8GiB or 40%");
}

TEST(Run, RefusesAMinimumAboveTheMaximum) {
  expect_refusal(kvcached({"run", "--min", "8GiB", "--max", "4GiB", "--", "/bin/true"}),
                 "KVCACHED_M");
}

TEST(Run, RefusesAFlagWithoutItsValue) {
  expect_refusal(kvcached({"run", "--pool"}), "--pool needs a value");
  expect_refusal(kvcached({"run", "--name", "--", "/bin/true"}), "--name needs a value");
}

TEST(Run, RefusesToRunNothing) {
  expect_refusal(kvcached({"run"}), "no command");
  expect_refusal(kvcached({"run", "--pool", "8GiB", "--"}), "no command");
}

TEST(Run, ACommandThatIsNotThereIs127) {
  const Outcome outcome = kvcached({"run", "--", "no-such-command-here"});
  EXPECT_EQ(outcome.status, 127);
  EXPECT_EQ(outcome.err, "kvcached: run: no-such-command-here: No such file or directory\n");
}

TEST(Run, ACommandThatCannotBeRunIs126) {
  const Folder folder;
  write_file(folder / "text", "no program");
  const Outcome outcome = kvcached({"run", "--", folder / "text"});
  EXPECT_EQ(outcome.status, 126);
  EXPECT_THAT(outcome.err, EndsWith("Permission denied\n"));
}

TEST(Verbs, AnUnknownOneIsRefused) {
  expect_refusal(kvcached({"banana"}), "banana");
  expect_refusal(kvcached({}), "no verb");
  expect_refusal(kvcached({"stat", "--banana"}), "--banana");
  expect_refusal(kvcached({"help", "banana"}), "banana");
}

TEST(Verbs, WhatIsUnknownCannotReachTheTerminalRaw) {
  const std::string word = "\033[2J" + std::string(20'000, 'x');
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {word}, {"stat", "--" + word}, {"run", "--" + word}, {"help", word}}) {
    const Outcome outcome = kvcached(words);
    expect_refusal(outcome, "?[2Jxxx");
    EXPECT_EQ(outcome.err.find('\033'), std::string::npos);
    EXPECT_LT(outcome.err.size(), 300U);
  }
}

TEST(Verbs, EachHasItsHelp) {
  const std::string stat = kvcached({"help", "stat"}).out;
  EXPECT_THAT(stat, HasSubstr("kvcached stat [--json]"));
  EXPECT_THAT(stat, HasSubstr("--dir D"));
  EXPECT_THAT(stat, Not(HasSubstr("kvcached set")));
  EXPECT_EQ(kvcached({"stat", "-h"}).out, stat);
  EXPECT_EQ(kvcached({"stat", "--json", "--help"}).out, stat);
  EXPECT_THAT(kvcached({"trim", "-h"}).out, HasSubstr("--wait"));
  const std::string settings = kvcached({"help", "settings"}).out;
  EXPECT_EQ(kvcached({"run", "-h"}).out, settings);
  EXPECT_EQ(kvcached({"help", "run"}).out, settings);
}

TEST(Verbs, HelpListsEveryVerbAndSetting) {
  const Outcome help = kvcached({"help"});
  EXPECT_EQ(help.status, 0);
  for (const char* verb : {"run", "stat", "help", "version"}) {
    EXPECT_THAT(help.out, HasSubstr(std::string("kvcached ") + verb));
  }
  const Outcome settings = kvcached({"help", "settings"});
  EXPECT_EQ(settings.status, 0);
  EXPECT_FALSE(setting_infos().empty());
  for (const SettingInfo& info : setting_infos()) {
    EXPECT_THAT(settings.out, HasSubstr(std::string(info.variable)));
    EXPECT_THAT(settings.out, HasSubstr(std::string(info.flag) + " "));
    EXPECT_THAT(settings.out, HasSubstr(std::string(info.meaning)));
  }
}

TEST(Verbs, Version) {
  const Outcome outcome = kvcached({"version"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.out, testing::MatchesRegex("kvcached [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

}  // namespace
}  // namespace kvcached::test
