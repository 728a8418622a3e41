// The parts of doors, hooks and driver floor that can be tested without a driver.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "shim/classify/classify.hpp"
#include "shim/classify/tags.hpp"
#include "shim/driver/peers.hpp"
#include "shim/hooks/own_gpu.hpp"

// These floors are in the library only, where they are hidden.
#include "shim/driver/capture_gate.cpp"
#include "shim/driver/contexts.cpp"
#include "shim/hooks/accounts.cpp"

namespace kvcached {
namespace {

constexpr Bytes mib(std::uint64_t n) { return Bytes(n << 20); }

using classify::Kind;

Kind decide(Bytes size, std::uint32_t tags, const std::optional<MatchRule>& rule) {
  return classify::decide(
      size, tags, rule, [](const MatchRule&) -> bool { std::abort(); }, [] { return 1U; });
}

TEST(Classify, TheStackIsLookedAtOnlyWhereTheRuleNamesACallerAndAllElseFits) {
  const std::optional<MatchRule> rule = MatchRule{mib(4), mib(8), "lib*.so", ""};
  EXPECT_EQ(decide(mib(2), 0, rule), Kind::plain);
  EXPECT_EQ(decide(mib(9), 0, rule), Kind::plain);
  EXPECT_EQ(decide(mib(4), 1, rule), Kind::tagged);
  for (const bool found : {false, true}) {
    const auto kind = classify::decide(
        mib(4), 0, rule, [=](const MatchRule&) { return found; }, [] { return 1U; });
    EXPECT_EQ(kind, found ? Kind::unclaimed : Kind::plain);
  }
}

TEST(Classify, SmallIsPlainWhateverIsSaid) {
  const std::optional<MatchRule> all = MatchRule{Bytes(0)};
  EXPECT_EQ(decide(mib(2) - Bytes(1), 1, all), Kind::plain);
  EXPECT_EQ(decide(mib(2), 1, std::nullopt), Kind::tagged);
  EXPECT_EQ(decide(mib(2), 0, all), Kind::unclaimed);
  EXPECT_EQ(decide(mib(2), 0, std::nullopt), Kind::plain);
}

TEST(Classify, RuleHasBothEnds) {
  const std::optional<MatchRule> rule = MatchRule{mib(4), mib(8)};
  EXPECT_EQ(decide(mib(4) - Bytes(1), 0, rule), Kind::plain);
  EXPECT_EQ(decide(mib(4), 0, rule), Kind::unclaimed);
  EXPECT_EQ(decide(mib(8), 0, rule), Kind::unclaimed);
  EXPECT_EQ(decide(mib(8) + Bytes(1), 0, rule), Kind::plain);
  EXPECT_EQ(decide(mib(9), 2, rule), Kind::tagged);
}

TEST(Classify, TheCountIsOfThoseThatMeetAllElse) {
  const std::optional<MatchRule> rule = MatchRule{mib(4), mib(8), "", "", 2, 3};
  std::uint64_t count = 0;
  const auto kind = [&](Bytes size, std::uint32_t tags) {
    return classify::decide(
        size, tags, rule, [](const MatchRule&) { return true; }, [&] { return ++count; });
  };
  EXPECT_EQ(kind(mib(4), 0), Kind::plain);
  EXPECT_EQ(kind(mib(9), 0), Kind::plain);
  EXPECT_EQ(kind(mib(4), 1), Kind::tagged);
  EXPECT_EQ(kind(mib(4), 0), Kind::unclaimed);
  EXPECT_EQ(kind(mib(8), 0), Kind::unclaimed);
  EXPECT_EQ(kind(mib(4), 0), Kind::plain);
}

TEST(Tags, NestAndBelongToTheirThread) {
  EXPECT_FALSE(classify::pop_tag());
  classify::push_tag("kv");
  classify::push_tag("a name that is far too long");
  EXPECT_EQ(classify::tag_depth(), 2U);
  EXPECT_EQ(classify::current_tag(), "a name that is ");
  std::thread([] { EXPECT_EQ(classify::tag_depth(), 0U); }).join();
  EXPECT_TRUE(classify::pop_tag());
  EXPECT_EQ(classify::current_tag(), "kv");
  for (int i = 0; i < 20; ++i) classify::push_tag("deep");
  EXPECT_EQ(classify::tag_depth(), 21U);
  EXPECT_EQ(classify::current_tag(), "");
  for (int i = 0; i < 21; ++i) EXPECT_TRUE(classify::pop_tag());
  EXPECT_FALSE(classify::pop_tag());
}

using hooks::held_outside;
using hooks::own_gpu;

TEST(OwnGpu, LeavesOutWhatOtherMembersHold) {
  const driver::MemoryInfo real{mib(300), mib(1000)};
  const Bytes outside = held_outside(real, {mib(50), mib(100), mib(400)});
  EXPECT_EQ(outside, mib(150));
  const auto view = own_gpu(real.total, outside, mib(50) + mib(600));
  EXPECT_EQ(view.total, mib(1000));
  EXPECT_EQ(view.free, mib(200));
}

TEST(OwnGpu, NeverFallsBelowZero) {
  EXPECT_EQ(held_outside({mib(900), mib(1000)}, {mib(50), mib(100), mib(0)}), Bytes(0));
  EXPECT_EQ(own_gpu(mib(1000), mib(900), mib(101)).free, Bytes(0));
}

using hooks::Accounts;

constexpr driver::DeviceId kFirst{0};
constexpr driver::DeviceId kSecond{1};

TEST(Accounts, CountsByDevice) {
  Accounts accounts;
  accounts.took(100, {mib(3), kFirst});
  accounts.took(200, {mib(5), kSecond});
  EXPECT_EQ(accounts.held(kFirst), mib(3));
  EXPECT_EQ(accounts.held(kSecond), mib(5));
  const auto what = accounts.gave(100);
  ASSERT_TRUE(what);
  EXPECT_EQ(what->size, mib(3));
  EXPECT_EQ(accounts.held(kFirst), Bytes(0));
  EXPECT_FALSE(accounts.gave(100));
}

TEST(Accounts, CreatedMemoryIsHeldWhileAnythingRefersToIt) {
  Accounts accounts;
  accounts.created(7, {mib(2), kFirst});
  accounts.mapped(1000, 7);
  accounts.mapped(mib(2).value + 1000, 7);
  accounts.retained(7);
  accounts.released(7);
  accounts.released(7);
  EXPECT_EQ(accounts.held(kFirst), mib(2));
  accounts.unmapped(1000, mib(2));
  EXPECT_EQ(accounts.held(kFirst), mib(2));
  accounts.unmapped(1000, mib(4));
  EXPECT_EQ(accounts.held(kFirst), Bytes(0));
  accounts.released(7);
  EXPECT_EQ(accounts.held(kFirst), Bytes(0));
}

TEST(Accounts, RememberTheFirstOutside) {
  Accounts accounts;
  EXPECT_EQ(accounts.first_outside(kFirst, hooks::View::driver, mib(10)), mib(10));
  EXPECT_EQ(accounts.first_outside(kFirst, hooks::View::driver, mib(20)), mib(10));
  EXPECT_EQ(accounts.first_outside(kFirst, hooks::View::management, mib(20)), mib(20))
      << "another view";
  EXPECT_EQ(accounts.first_outside(kSecond, hooks::View::driver, mib(30)), mib(30));
}

TEST(CaptureGate, IsOpenUntilTheLastCaptureEnds) {
  driver::CaptureGate gate;
  int a = 0;
  int b = 0;
  const driver::CapturedStream first{&a, nullptr};
  const driver::CapturedStream second{&b, nullptr};
  const auto open = [&] { return gate.open(gate.hold()); };
  EXPECT_FALSE(open());
  gate.opened(gate.hold(), driver::ContextId{&a}, first);
  gate.opened(gate.hold(), driver::ContextId{&b}, second);
  EXPECT_TRUE(open());
  gate.closed(first);
  EXPECT_TRUE(open());
  gate.closed(second);
  EXPECT_FALSE(open());
}

TEST(CaptureGate, TellsThreadsDefaultStreamsApartAndForgetsContexts) {
  driver::CaptureGate gate;
  int a = 0;
  char mine = 0;
  char theirs = 0;
  const driver::ContextId one{&a};
  gate.opened(gate.hold(), one, {&a, &mine});
  gate.closed({&a, &theirs});
  gate.closed({&a, nullptr});
  EXPECT_TRUE(gate.open(gate.hold()));
  gate.context_gone(one);
  EXPECT_FALSE(gate.open(gate.hold()));
}

TEST(Contexts, NobodyUsesOneThatIsBeingDestroyedOrWas) {
  driver::Contexts contexts;
  int a = 0;
  int b = 0;
  const driver::ContextId one{&a};
  const auto usable = [&](driver::ContextId context) {
    return driver::Contexts::Use(contexts, context).status();
  };
  contexts.seen(one);
  EXPECT_EQ(usable(one), driver::Status::ok);
  contexts.closing(one);
  contexts.closing(one);
  EXPECT_EQ(usable(one), driver::Status::not_now);
  EXPECT_EQ(usable({&b}), driver::Status::ok);
  contexts.closed(one, false);
  EXPECT_EQ(usable(one), driver::Status::not_now) << "another thread is closing it";
  contexts.closed(one, false);
  EXPECT_EQ(usable(one), driver::Status::ok);
  contexts.closing(one);
  contexts.closed(one, true);
  EXPECT_EQ(usable(one), driver::Status::lost);
  contexts.seen(one);
  EXPECT_EQ(usable(one), driver::Status::ok) << "a new one at its address";
}

TEST(Contexts, ClosingWaitsForCallsThatAreUnderWay) {
  driver::Contexts contexts;
  int a = 0;
  const driver::ContextId one{&a};
  std::atomic<bool> closed{false};
  std::thread closer;
  {
    const driver::Contexts::Use use(contexts, one);
    closer = std::thread([&] {
      contexts.closing(one);
      closed = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_FALSE(closed);
  }
  closer.join();
}

TEST(Peers, AreKeptByOwner) {
  driver::Peers peers;
  const auto of = [&](driver::DeviceId owner) {
    std::vector<int> found;
    peers.for_each_of(owner, [&](driver::DeviceId peer) { found.push_back(peer.ordinal); });
    return found;
  };
  const driver::DeviceId last{driver::Peers::kDevices - 1};
  EXPECT_TRUE(peers.enable(kFirst, kSecond));
  EXPECT_FALSE(peers.enable(kFirst, kSecond));
  EXPECT_TRUE(peers.enable(kFirst, last));
  EXPECT_EQ(of(kFirst), (std::vector<int>{kSecond.ordinal, last.ordinal}));
  EXPECT_TRUE(of(kSecond).empty());
  EXPECT_TRUE(peers.disable(kFirst, kSecond));
  EXPECT_FALSE(peers.disable(kFirst, kSecond));
  EXPECT_EQ(of(kFirst), std::vector<int>{last.ordinal});
  for (const int beyond : {-1, driver::Peers::kDevices}) {
    EXPECT_FALSE(peers.enable(driver::DeviceId{beyond}, kFirst));
    EXPECT_FALSE(peers.enable(kFirst, driver::DeviceId{beyond}));
    EXPECT_TRUE(of(driver::DeviceId{beyond}).empty());
  }
}

// What was mapped once can be mapped again without memory for it.
TEST(Peers, KeepWhereSomethingWasMapped) {
  driver::Peers peers;
  for (const driver::Address at : {100U, 200U, 300U})
    EXPECT_TRUE(peers.mapped(at, {mib(2), kFirst}));
  peers.unmapped(100);
  peers.unmapped(150);
  EXPECT_EQ(peers.mappings().size(), 3U);
  EXPECT_EQ(peers.mappings().at(100).size, Bytes());
  EXPECT_EQ(peers.mappings().at(200).size, mib(2));
  EXPECT_TRUE(peers.mapped(100, {mib(4), kSecond}));
  EXPECT_EQ(peers.mappings().at(100).size, mib(4));
  peers.forget(100, Bytes(200));
  EXPECT_EQ(peers.mappings().size(), 1U);
  EXPECT_TRUE(peers.mappings().contains(300));
}

}  // namespace
}  // namespace kvcached
