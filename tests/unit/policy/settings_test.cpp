#include "policy/settings.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <map>
#include <set>

namespace kvcached {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

struct Result {
  Settings settings;
  std::vector<std::string> complaints;
};

Result read(const std::map<std::string, std::string>& variables) {
  Result result;
  result.settings = read_settings(
      [&](const char* name) {
        const auto found = variables.find(name);
        return found == variables.end() ? nullptr : found->second.c_str();
      },
      result.complaints);
  return result;
}

TEST(ParseSizeTest, Amounts) {
  const std::map<std::string, std::uint64_t> good{{"0", 0},
                                                  {"1073741824", 1ULL << 30},
                                                  {"12B", 12},
                                                  {"8GiB", 8ULL << 30},
                                                  {"1.5KiB", 1536},
                                                  {"256MiB", 256ULL << 20},
                                                  {"2TiB", 2ULL << 40},
                                                  {"3KB", 3'000},
                                                  {"3MB", 3'000'000},
                                                  {"1.25GB", 1'250'000'000},
                                                  {"4TB", 4'000'000'000'000},
                                                  {"0.000001TiB", 1'099'511},
                                                  {"18446744073709551615", ~0ULL}};
  for (const auto& [text, bytes] : good) {
    const std::optional<Size> size = parse_size(text);
    ASSERT_TRUE(size) << text;
    EXPECT_FALSE(size->is_share) << text;
    EXPECT_EQ(size->bytes, Bytes(bytes)) << text;
  }
}

TEST(ParseSizeTest, Shares) {
  const std::map<std::string, double> good{{"0%", 0}, {"40%", 0.4}, {"100%", 1}, {"12.5%", 0.125}};
  for (const auto& [text, share] : good) {
    const std::optional<Size> size = parse_size(text);
    ASSERT_TRUE(size) << text;
    EXPECT_TRUE(size->is_share) << text;
    EXPECT_DOUBLE_EQ(size->share, share) << text;
  }
}

TEST(ParseSizeTest, Refused) {
  for (const char* text : {"",
                           " ",
                           "banana",
                           "-1",
                           "-1GiB",
                           "+1GiB",
                           "nan",
                           "NaN%",
                           "inf",
                           "1e9",
                           "0x10",
                           "8GiB ",
                           " 8GiB",
                           "8 GiB",
                           "8GiBx",
                           "8gib",
                           "8G",
                           "GiB",
                           "%",
                           "100.1%",
                           "101%",
                           "40%%",
                           "40%GiB",
                           "1.",
                           "1.GiB",
                           ".5GiB",
                           "1.5",
                           "1.5B",
                           "1.1234567GiB",
                           "1,5GiB",
                           "18446744073709551616",
                           "99999999999999999999999GiB",
                           "16777216TiB",
                           "17179869184GiB",
                           "1.5.5GiB"}) {
    EXPECT_FALSE(parse_size(text)) << '"' << text << '"';
  }
}

TEST(ParseSizeTest, WhatIsCountedInPagesHasAtLeastOne) {
  for (const char* text : {"1", "40", "1MiB", "2097151", "1.9MiB", "banana"}) {
    EXPECT_FALSE(parse_pages(text)) << text;
    EXPECT_FALSE(parse_some_pages(text)) << text;
  }
  for (const char* text : {"2MiB", "3MB", "40%", "0.1%"}) {
    EXPECT_TRUE(parse_pages(text)) << text;
    EXPECT_TRUE(parse_some_pages(text)) << text;
  }
  for (const char* text : {"0", "0%", "0GiB"}) {
    EXPECT_TRUE(parse_pages(text)) << text;
    EXPECT_FALSE(parse_some_pages(text)) << text;
  }
}

TEST(SizeTest, OfTotal) {
  EXPECT_EQ((Size{Bytes(7), 0, false}.of(Bytes(100))), Bytes(7));
  EXPECT_EQ((Size{Bytes(), 0.4, true}.of(Bytes(1000))), Bytes(400));
  EXPECT_EQ((Size{Bytes(), 1, true}.of(Bytes::max())), Bytes::max());
}

TEST(ParseMatchTest, Rules) {
  const std::optional<MatchRule> open = parse_match("size>=256MiB");
  ASSERT_TRUE(open);
  EXPECT_EQ(open->at_least, Bytes(256ULL << 20));
  EXPECT_EQ(open->at_most, Bytes::max());
  const std::optional<MatchRule> both = parse_match("size>=256MiB,size<=2GiB");
  ASSERT_TRUE(both);
  EXPECT_EQ(both->at_most, Bytes(2ULL << 30));
  for (const char* text :
       {"", "size", "size>=", "size>256MiB", "size>=40%", "size>=0", "256MiB",
        "size>=2GiB,size<=1GiB", "size>=1GiB,", "size>=1GiB,size<=50%", "size>=1GiB,size<=2GiB,",
        "size>=1GiB;size<=2GiB", "size<=2GiB", "size >= 1GiB", "size>=1GiB,size>=2GiB",
        "size<=1GiB,size<=2GiB,size>=1"}) {
    EXPECT_FALSE(parse_match(text)) << '"' << text << '"';
  }
}

TEST(ParseMatchTest, Counts) {
  const std::optional<MatchRule> rule = parse_match("count<=40,size>=1GiB,count>=3");
  ASSERT_TRUE(rule);
  EXPECT_EQ(rule->first, 3U);
  EXPECT_EQ(rule->last, 40U);
  EXPECT_EQ(parse_match("size>=1GiB")->first, 1U);
  EXPECT_TRUE(parse_match("size>=1GiB,count<=18446744073709551614"));
  for (const char* text : {"count>=3", "count<=3", "size>=1GiB,count>=0", "size>=1GiB,count<=0",
                           "size>=1GiB,count>=", "size>=1GiB,count>=-1", "size>=1GiB,count>=3x",
                           "size>=1GiB,count>=4,count<=3", "size>=1GiB,count<=3,count<=4",
                           "size>=1GiB,count>=3,count>=4", "size>=1GiB,count=3",
                           "size>=1GiB,count<=18446744073709551616"}) {
    EXPECT_FALSE(parse_match(text)) << '"' << text << '"';
  }
}

TEST(ParseMatchTest, Callers) {
  const std::optional<MatchRule> module = parse_match("module=libkv*.so");
  ASSERT_TRUE(module);
  EXPECT_EQ(module->module, "libkv*.so");
  EXPECT_TRUE(module->by_caller());
  EXPECT_EQ(module->at_least, Bytes());
  EXPECT_EQ(module->at_most, Bytes::max());
  const std::optional<MatchRule> all =
      parse_match("symbol=_ZN2kv4initEv,size<=2GiB,module=lib.so,size>=1GiB");
  ASSERT_TRUE(all);
  EXPECT_EQ(all->symbol, "_ZN2kv4initEv");
  EXPECT_EQ(all->module, "lib.so");
  EXPECT_EQ(all->at_least, Bytes(1ULL << 30));
  EXPECT_EQ(all->at_most, Bytes(2ULL << 30));
  EXPECT_FALSE(parse_match("size>=1GiB")->by_caller());
  EXPECT_TRUE(parse_match("symbol=f,size<=1GiB"));
  const std::string longest(200, 'x');
  EXPECT_TRUE(parse_match("symbol=" + longest));
  for (const std::string& text :
       {std::string("module="), std::string("symbol="), std::string("module"),
        std::string("module=/usr/lib/libkv.so"), std::string("module=a,module=b"),
        std::string("symbol=a,symbol=b"), std::string("symbol=a b"), std::string("symbol=a\n"),
        std::string("module=a,"), std::string(",module=a"), std::string("module=a,size<=0"),
        std::string("caller=a"), "symbol=x" + longest}) {
    EXPECT_FALSE(parse_match(text)) << '"' << text << '"';
  }
}

TEST(ParseMatchTest, Globs) {
  for (const auto& [pattern, text] :
       std::vector<std::pair<const char*, const char*>>{{"libkv.so", "libkv.so"},
                                                        {"lib*.so", "libkv.so"},
                                                        {"lib*.so*", "libkv.so.1.2"},
                                                        {"*", ""},
                                                        {"*", "anything"},
                                                        {"**a*", "ba"},
                                                        {"?b?", "abc"},
                                                        {"*aab", "aaaaab"},
                                                        {"a*b*c", "a.b.b.c"}}) {
    EXPECT_TRUE(glob_matches(pattern, text)) << pattern << " " << text;
  }
  for (const auto& [pattern, text] :
       std::vector<std::pair<const char*, const char*>>{{"libkv.so", "libkv.so.1"},
                                                        {"libkv.so", "xlibkv.so"},
                                                        {"", "a"},
                                                        {"?", ""},
                                                        {"a?", "a"},
                                                        {"*aab", "aaaab."},
                                                        {"a*b*c", "a.c.b"},
                                                        {"a*b*c*", "acbx"},
                                                        {"LIB*", "lib"}}) {
    EXPECT_FALSE(glob_matches(pattern, text)) << pattern << " " << text;
  }
}

TEST(SettingsTest, Defaults) {
  const Result result = read({});
  EXPECT_THAT(result.complaints, IsEmpty());
  const Settings& settings = result.settings;
  EXPECT_FALSE(settings.disabled);
  EXPECT_EQ(settings.pool.of(Bytes(1000)), Bytes(900));
  EXPECT_EQ(settings.name, "");
  EXPECT_EQ(settings.min.of(Bytes(1000)), Bytes(0));
  EXPECT_EQ(settings.max.of(Bytes(1000)), Bytes(1000));
  EXPECT_EQ(settings.weight, 100U);
  EXPECT_FALSE(settings.match);
  EXPECT_FALSE(settings.hints_args);
  EXPECT_EQ(settings.stripe, Bytes(0));
  EXPECT_FALSE(settings.warm);
  EXPECT_EQ(settings.prefix_cache.of(Bytes(1000)), Bytes(50));
  EXPECT_EQ(settings.log, LogLevel::warning);
  EXPECT_TRUE(settings.adapters);
  const std::string user = "/kvcached-" + std::to_string(::geteuid());
  const bool shared_memory = ::access("/dev/shm", W_OK | X_OK) == 0;
  EXPECT_EQ(settings.directory, (shared_memory ? "/dev/shm" : "/tmp") + user);
  EXPECT_FALSE(settings.directory_named);
}

TEST(SettingsTest, AllSet) {
  const Result result = read({{"KVCACHED_DISABLE", "1"},
                              {"KVCACHED_POOL", "40%"},
                              {"KVCACHED_NAME", "chat model"},
                              {"KVCACHED_MIN", "1GiB"},
                              {"KVCACHED_MAX", "8GiB"},
                              {"KVCACHED_WEIGHT", "250"},
                              {"KVCACHED_MATCH", "size>=256MiB"},
                              {"KVCACHED_HINTS", "args"},
                              {"KVCACHED_STRIPE", "32MiB"},
                              {"KVCACHED_WARM", "512MiB"},
                              {"KVCACHED_PREFIX_CACHE", "10%"},
                              {"KVCACHED_DIR", "/run/pool"},
                              {"KVCACHED_LOG_FILE", "log.txt"},
                              {"KVCACHED_LOG", "debug"},
                              {"KVCACHED_ADAPTERS", "0"}});
  EXPECT_THAT(result.complaints, IsEmpty());
  const Settings& settings = result.settings;
  EXPECT_TRUE(settings.disabled);
  EXPECT_EQ(settings.pool.of(Bytes(1000)), Bytes(400));
  EXPECT_EQ(settings.name, "chat model");
  EXPECT_EQ(settings.min.bytes, Bytes(1ULL << 30));
  EXPECT_EQ(settings.max.bytes, Bytes(8ULL << 30));
  EXPECT_EQ(settings.weight, 250U);
  ASSERT_TRUE(settings.match);
  EXPECT_EQ(settings.match->at_least, Bytes(256ULL << 20));
  EXPECT_TRUE(settings.hints_args);
  EXPECT_EQ(settings.stripe, Bytes(32ULL << 20));
  EXPECT_EQ(settings.warm, Bytes(512ULL << 20));
  EXPECT_EQ(settings.prefix_cache.of(Bytes(1000)), Bytes(100));
  EXPECT_EQ(settings.directory, "/run/pool");
  EXPECT_TRUE(settings.directory_named);
  EXPECT_EQ(settings.log_file, "log.txt");
  EXPECT_EQ(settings.log, LogLevel::debug);
  EXPECT_FALSE(settings.adapters);
}

TEST(SettingsTest, BadValueNamesVariableValueAndWhatIsAllowed) {
  const Result result = read({{"KVCACHED_POOL", "banana"}});
  EXPECT_THAT(result.complaints,
              ElementsAre("KVCACHED_POOL=banana: not a size of at least 2MiB; write e.g. 8GiB or "
                          "40%"));
  EXPECT_EQ(result.settings.pool.of(Bytes(1000)), Bytes(900));
}

TEST(SettingsTest, EveryVariableRefusesBadValuesAndKeepsItsDefault) {
  const std::map<std::string, std::vector<std::string>> bad{
      {"KVCACHED_DISABLE", {"", "2", "yes", "-1"}},
      {"KVCACHED_POOL", {"", "0", "0%", "-1", "101%", "40"}},
      {"KVCACHED_NAME", {"", std::string(48, 'x'), "a\nb", "\xc3\xa4"}},
      {"KVCACHED_MIN", {"", "-1", "nan", "1GiBx", "8"}},
      {"KVCACHED_MAX", {"", "0", "0%", "200%", "8"}},
      {"KVCACHED_WEIGHT", {"", "0", "-1", "10001", "1.5", "10%", "1KiB", "4294967297"}},
      {"KVCACHED_MATCH", {"", "all", "size>=50%"}},
      {"KVCACHED_HINTS", {"", "arg", "args,args", "1"}},
      {"KVCACHED_STRIPE", {"", "1MiB", "3MiB", "2GiB", "10%", "-2MiB"}},
      {"KVCACHED_WARM", {"", "10%", "-1"}},
      {"KVCACHED_PREFIX_CACHE", {"", "101%", "-1"}},
      {"KVCACHED_DIR", {"", "relative/path", std::string(5000, '/')}},
      {"KVCACHED_LOG_FILE", {"", std::string(5000, 'x')}},
      {"KVCACHED_LOG", {"", "verbose", "4", "Debug"}},
      {"KVCACHED_ADAPTERS", {"", "2", "off"}}};
  const Settings standard = read({}).settings;
  for (const SettingInfo& info : setting_infos()) {
    const std::string variable(info.variable);
    ASSERT_TRUE(bad.contains(variable)) << variable;
    for (const std::string& value : bad.at(variable)) {
      const Result result = read({{variable, value}});
      ASSERT_EQ(result.complaints.size(), 1U) << variable << '=' << value;
      EXPECT_THAT(result.complaints[0], testing::StartsWith(variable + "=")) << value;
      EXPECT_THAT(result.complaints[0], HasSubstr("; write ")) << value;
      EXPECT_LT(result.complaints[0].size(), 250U) << value;
      EXPECT_EQ(result.complaints[0].find('\n'), std::string::npos) << value;
    }
    const Settings kept = read({{variable, bad.at(variable)[1]}}).settings;
    EXPECT_EQ(kept.disabled, standard.disabled);
    EXPECT_EQ(kept.pool.share, standard.pool.share);
    EXPECT_EQ(kept.name, standard.name);
    EXPECT_EQ(kept.min.bytes, standard.min.bytes);
    EXPECT_EQ(kept.max.share, standard.max.share);
    EXPECT_EQ(kept.weight, standard.weight);
    EXPECT_EQ(kept.match.has_value(), standard.match.has_value());
    EXPECT_EQ(kept.hints_args, standard.hints_args);
    EXPECT_EQ(kept.stripe, standard.stripe);
    EXPECT_EQ(kept.warm, standard.warm);
    EXPECT_EQ(kept.prefix_cache.share, standard.prefix_cache.share);
    EXPECT_EQ(kept.directory, standard.directory);
    EXPECT_EQ(kept.directory_named, standard.directory_named);
    EXPECT_EQ(kept.log_file, standard.log_file);
    EXPECT_EQ(kept.log, standard.log);
    EXPECT_EQ(kept.adapters, standard.adapters);
  }
}

TEST(SettingsTest, OneBadValueLeavesTheOthers) {
  const Result result = read({{"KVCACHED_POOL", "banana"}, {"KVCACHED_WEIGHT", "7"}});
  EXPECT_EQ(result.complaints.size(), 1U);
  EXPECT_EQ(result.settings.weight, 7U);
}

TEST(SettingsTest, MinimumAboveMaximumFallsBackToNone) {
  const Result result = read({{"KVCACHED_MIN", "8GiB"}, {"KVCACHED_MAX", "4GiB"}});
  EXPECT_THAT(result.complaints,
              ElementsAre("KVCACHED_MIN=8GiB: above the maximum; write at most KVCACHED_MAX, "
                          "which is 4GiB"));
  EXPECT_EQ(result.settings.min.of(Bytes(1ULL << 40)), Bytes(0));
  EXPECT_EQ(result.settings.max.bytes, Bytes(4ULL << 30));
}

TEST(SettingsTest, MinimumAndMaximumOfDifferentKinds) {
  EXPECT_EQ(read({{"KVCACHED_MIN", "60%"}, {"KVCACHED_MAX", "50%"}}).complaints.size(), 1U);
  EXPECT_THAT(read({{"KVCACHED_MIN", "50%"}, {"KVCACHED_MAX", "50%"}}).complaints, IsEmpty());
  // Depends on the GPU: left to the pool.
  EXPECT_THAT(read({{"KVCACHED_MIN", "8GiB"}, {"KVCACHED_MAX", "50%"}}).complaints, IsEmpty());
  const Result known =
      read({{"KVCACHED_MIN", "8GiB"}, {"KVCACHED_MAX", "50%"}, {"KVCACHED_POOL", "10GiB"}});
  EXPECT_THAT(known.complaints,
              ElementsAre("KVCACHED_MIN=8GiB: above the maximum; write at most KVCACHED_MAX, which "
                          "is 50% of KVCACHED_POOL=10GiB"));
  EXPECT_FALSE(known.settings.min.bytes);
  // A bad maximum counts as its default, and is not quoted as if it were one.
  const Result bad =
      read({{"KVCACHED_MIN", "8GiB"}, {"KVCACHED_MAX", "much"}, {"KVCACHED_POOL", "4GiB"}});
  ASSERT_EQ(bad.complaints.size(), 2U);
  EXPECT_THAT(bad.complaints[1], HasSubstr("which is 100% of KVCACHED_POOL=4GiB"));
}

TEST(SettingsTest, TableHasAllThatHelpShows) {
  std::set<std::string_view> variables;
  std::set<std::string_view> flags;
  for (const SettingInfo& info : setting_infos()) {
    variables.insert(info.variable);
    flags.insert(info.flag);
    EXPECT_EQ(info.variable.substr(0, 9), "KVCACHED_");
    EXPECT_EQ(info.flag.substr(0, 2), "--");
    EXPECT_FALSE(info.value.empty());
    EXPECT_FALSE(info.standard.empty());
    EXPECT_FALSE(info.meaning.empty());
    EXPECT_LE(info.meaning.size(), 80U) << info.meaning;
  }
  EXPECT_EQ(variables.size(), setting_infos().size());
  EXPECT_EQ(flags.size(), setting_infos().size());
}

}  // namespace
}  // namespace kvcached
