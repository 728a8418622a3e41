// Rules that name who calls: a module or an exported function on the stack of the allocation.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/preload/run_program.hpp"

namespace kvcached::test {
namespace {

// Which of the allocations became elastic.
struct Elastic {
  int itself = 0, thread = 0, cache = 0, other = 0;
};

std::string told(const Elastic& e) {
  const auto line = [](const char* who, int elastic) {
    return who + std::string(" 0 elastic ") + std::to_string(elastic) + " free 0\n";
  };
  return line("itself", e.itself) + line("thread", e.thread) + line("cache_allocate", e.cache) +
         line("other_allocate", e.other);
}

Outcome run_with(const std::string& rule, Environment more = {}) {
  more["LD_PRELOAD"] = library();
  more["KVCACHED_MATCH"] = rule;
  return run_program({program("callers"), helper_library("allocator")}, more);
}

struct Case {
  const char* name;
  const char* rule;
  Elastic elastic;
};

class CallerRule : public testing::TestWithParam<Case> {};

TEST_P(CallerRule, MakesOnlyTheirAllocationsElastic) {
  const auto outcome = run_with(GetParam().rule);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, told(GetParam().elastic)) << outcome.err;
}

INSTANTIATE_TEST_SUITE_P(
    Rules, CallerRule,
    testing::Values(Case{"module", "module=liballocator.so", {0, 0, 1, 1}},
                    Case{"glob", "module=lib*ator.s?", {0, 0, 1, 1}},
                    Case{"not_a_part", "module=allocator", {}},
                    Case{"symbol", "symbol=cache_allocate", {0, 0, 1, 0}},
                    Case{"symbol_glob", "symbol=*_allocate", {0, 0, 1, 1}},
                    Case{"both", "module=liballocator.so,symbol=other_*", {0, 0, 0, 1}},
                    // A function of the program and a file of the library: no frame is both.
                    Case{"one_frame", "module=liballocator.so,symbol=in_turn", {}},
                    Case{"outer_symbol", "symbol=in_turn", {0, 0, 1, 1}},
                    // What is not exported has no name, nor gets that of its neighbour.
                    Case{"hidden", "symbol=allocate_*", {}},
                    Case{"program", "module=callers", {1, 1, 1, 1}},
                    Case{"ourselves", "module=libkvcached.so", {}},
                    Case{"size_too", "size>=9MiB,module=liballocator.so", {}},
                    Case{"second", "module=liballocator.so,count>=2", {0, 0, 0, 1}},
                    Case{"first_two", "module=callers,count<=2", {1, 1, 0, 0}}),
    [](const auto& rule) { return rule.param.name; });

TEST(Callers, AnotherLibraryAtTheSameAddressesIsNotTakenForTheFirst) {
  const std::string twin = std::filesystem::temp_directory_path().string() + "/libtwin.so";
  std::filesystem::copy_file(helper_library("allocator"), twin);
  const auto outcome =
      run_program({program("callers"), helper_library("allocator"), twin},
                  {{"LD_PRELOAD", library()}, {"KVCACHED_MATCH", "module=liballocator.so"}});
  EXPECT_EQ(outcome.out, told({0, 0, 1, 1}) +
                             "cache_allocate 0 elastic 0 free 0\n"
                             "other_allocate 0 elastic 0 free 0\n")
      << outcome.err;
}

TEST(Callers, ALibraryIsFoundWhereGeneratedCodeWas) {
  const auto outcome =
      run_program({program("generated_code"), helper_library("allocator")},
                  {{"LD_PRELOAD", library()}, {"KVCACHED_MATCH", "module=liballocator.so"}});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "generated 0 elastic 0\nsame addresses 1\nlibrary 0 elastic 1\n")
      << outcome.err;
}

TEST(Callers, AreFoundWithoutADescriptorThatTheProgramCouldReuse) {
  const auto outcome =
      run_program({program("closes_descriptors")},
                  {{"LD_PRELOAD", library()}, {"KVCACHED_MATCH", "module=closes_descriptors"}});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "0 elastic 1\n0 elastic 1\npipe 0: 5 of 5: hello\n") << outcome.err;
}

TEST(Callers, ABadRuleIsOneLineThatSaysWhatIsAllowed) {
  const auto outcome = run_with("module=/usr/lib/liballocator.so");
  EXPECT_EQ(outcome.out, told({}));
  const auto log = lines_of(outcome.err);
  ASSERT_EQ(log.size(), 1U) << outcome.err;
  EXPECT_NE(log[0].find("KVCACHED_MATCH=module=/usr/lib/liballocator.so: not a rule; write e.g. "),
            std::string::npos)
      << log[0];
}

}  // namespace
}  // namespace kvcached::test
