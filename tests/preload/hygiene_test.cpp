// What the finished library exports and needs, and that programs which have nothing to do with
// GPUs do not notice it.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <regex>
#include <sstream>

#include "tests/preload/elf.hpp"
#include "tests/preload/run_program.hpp"

namespace kvcached::test {
namespace {

TEST(Hygiene, ExportsNothingButItsDoorsAndItsInterface) {
  const std::regex ours("(cu[A-Z]|nvml[A-Z]|kvcached_)\\w+|dlsym");
  for (const auto& name : read_elf(library()).exports) {
    EXPECT_TRUE(std::regex_match(name, ours)) << name;
  }
}

TEST(Hygiene, ExportsItsWholeInterface) {
  std::ifstream header(source_folder() + "/shim/include/kvcached.h");
  std::stringstream text;
  text << header.rdbuf();
  const std::string all = text.str();
  const std::regex function("KVCACHED_API [a-z0-9_ *]*?(kvcached_\\w+)\\(");
  const auto exports = read_elf(library()).exports;
  int count = 0;
  for (std::sregex_iterator i(all.begin(), all.end(), function), end; i != end; ++i, ++count) {
    EXPECT_TRUE(exports.contains((*i)[1])) << (*i)[1];
  }
  EXPECT_GE(count, 15);
}

TEST(Hygiene, NeedsOnlyLibcUninstrumented) {
  const std::regex libc("(libc|libm|libpthread|libdl|librt)\\.so\\.\\d+|ld-linux-.*\\.so\\.\\d");
  const auto needed = read_elf(library()).needed;
  EXPECT_FALSE(needed.empty());
  for (const auto& name : needed) {
    EXPECT_TRUE(std::regex_match(name, libc)) << name;
  }
}

TEST(Hygiene, RunsWithGlibc234Uninstrumented) {
  const auto versions = read_elf(library()).versions;
  EXPECT_TRUE(versions.contains("GLIBC_2.2.5"));
  for (const auto& version : versions) {
    int minor = 0;
    if (std::sscanf(version.c_str(), "GLIBC_2.%d", &minor) == 1) {
      EXPECT_LE(minor, 34) << version;
    } else {
      ADD_FAILURE() << version << " is no version of libc";
    }
  }
}

TEST(Hygiene, IsSilentInFrontOfOtherProgramsUninstrumented) {
  const std::vector<std::vector<std::string>> programs = {
      {"true"},
      {"false"},
      {"bash", "-c", "echo hello; exit 7"},
      {"sh", "-c", "kill -9 $$"},
      {"python3", "-c", "print('hello'); raise SystemExit(5)"},
      {"python3", "-c", "import ctypes, decimal, json, ssl, subprocess; print(6 * 7)"},
  };
  for (const auto& words : programs) {
    for (const char* path : {"", "on"}) {
      // Without a driver to be found, and with one.
      Environment plain;
      if (*path == '\0') plain["LD_LIBRARY_PATH"] = "";
      Environment preloaded = plain;
      preloaded["LD_PRELOAD"] = library();
      const auto alone = run_program(words, plain);
      const auto with = run_program(words, preloaded);
      EXPECT_EQ(with.status, alone.status) << words.back();
      EXPECT_EQ(with.out, alone.out) << words.back();
      EXPECT_EQ(with.err, alone.err) << words.back();
    }
  }
}

}  // namespace
}  // namespace kvcached::test
