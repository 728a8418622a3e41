// Buffers that nobody claims, backed from what was charged for them ahead.
#include "shim/member/guesses.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "tests/unit/cache/fakes.hpp"
#include "tests/unit/policy/pool_folder.hpp"

namespace kvcached::test {
namespace {

class Guesses : public ledger::PoolFolder {
 protected:
  void SetUp() override {
    Settings settings;
    settings.directory = path_;
    settings.directory_named = true;
    member_ = member::Member::join(settings, gpu_, bytes_of(Pages(1024)), std::nullopt, clock_);
    ASSERT_NE(member_, nullptr);
    constexpr Pages kKept = pages_up(kMiB * 8);
    ASSERT_EQ(cache::Buffer::create({world_.driver, *member_, world_.scratch}, kMiB * 8, kContext,
                                    buffer_),
              cache::Result::ok);
    ASSERT_TRUE(member_->charge(kKept));
    ASSERT_TRUE(guesses_.add(*member_, buffer_, kKept));
  }
  void TearDown() override {
    buffer_.reset();
    EXPECT_EQ(charged(), Pages());
  }
  Pages charged() const { return member_->ledger().charged(); }

  World world_;
  std::unique_ptr<member::Member> member_;
  std::shared_ptr<cache::Buffer> buffer_;
  std::atomic<std::uint32_t> open_{0};
  member::Guesses guesses_{open_, clock_};
};

TEST_F(Guesses, AreBackedFromWhatWasCharged) {
  EXPECT_TRUE(guesses_.back_all());
  EXPECT_EQ(buffer_->use(), cache::Use::whole);
  EXPECT_EQ(open_, 0U);
  EXPECT_EQ(charged(), Pages(4));
}

TEST_F(Guesses, WithoutItsContextOneIsLetGo) {
  const member::Touch touch{buffer_->base(), kMiB * 8};
  const std::function<bool()> ways[] = {
      [&] { return guesses_.back_all(); },
      [&] {
        return guesses_.back({&touch, 1});
      },
      [&] { return guesses_.back_whole(buffer_) == cache::Result::lost; },
  };
  for (const auto& way : ways) {
    world_.driver.fail(Call::create, 0, Status::lost);
    EXPECT_TRUE(way());
    EXPECT_EQ(open_, 1U) << "another context may be the lost one";
    world_.driver.fail(Call::create, 0, Status::lost);
    world_.driver.fail(Call::synchronize, 0, Status::lost);
    EXPECT_TRUE(way());
    EXPECT_EQ(open_, 0U);
    EXPECT_EQ(charged(), Pages());
    ASSERT_TRUE(guesses_.add(*member_, buffer_, Pages()));
  }
  guesses_.settle(buffer_);
}

}  // namespace
}  // namespace kvcached::test
