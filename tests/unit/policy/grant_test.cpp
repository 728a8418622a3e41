// The rules of granting on plain books.
#include "policy/ledger/grant.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <random>

namespace kvcached::ledger {
namespace {

std::unique_ptr<Books> books_of(std::uint64_t pool, std::initializer_list<TenantBook> tenants) {
  auto books = std::make_unique<Books>();
  books->pool = Pages(pool);
  for (const TenantBook& tenant : tenants) {
    books->tenants[books->tenants_end++] = tenant;
    books->charged += tenant.charged;
    books->limbo += tenant.limbo;
  }
  return books;
}

TenantBook tenant(std::uint64_t min, std::uint64_t max, std::uint64_t charged,
                  std::uint64_t limbo = 0, bool living = true) {
  return {Pages(min), Pages(max), Pages(charged), Pages(limbo), living};
}

TEST(GrantTest, UpToWhatIsFree) {
  const auto books = books_of(100, {tenant(0, 100, 40), tenant(0, 100, 50)});
  EXPECT_TRUE(may_grant(*books, 0, Pages(10)));
  EXPECT_FALSE(may_grant(*books, 0, Pages(11)));
}

TEST(GrantTest, OthersFloorsStay) {
  const auto books = books_of(100, {tenant(0, 100, 40), tenant(30, 100, 10)});
  EXPECT_TRUE(may_grant(*books, 0, Pages(30)));
  EXPECT_FALSE(may_grant(*books, 0, Pages(31)));
  EXPECT_TRUE(may_grant(*books, 1, Pages(50)));
}

TEST(GrantTest, OwnMaximumHolds) {
  const auto books = books_of(100, {tenant(0, 45, 40)});
  EXPECT_TRUE(may_grant(*books, 0, Pages(5)));
  EXPECT_FALSE(may_grant(*books, 0, Pages(6)));
}

TEST(GrantTest, LimboIsNotFreeAndCountsTowardsItsTenantsFloor) {
  const auto books = books_of(100, {tenant(0, 100, 0), tenant(50, 100, 10, 30)});
  EXPECT_EQ(books->free(), Pages(60));
  EXPECT_EQ(books->tenants[1].floor(), Pages(10));
  EXPECT_TRUE(may_grant(*books, 0, Pages(50)));
  EXPECT_FALSE(may_grant(*books, 0, Pages(51)));
}

TEST(GrantTest, ReachIsWhatMaximumAndOthersMinimumsLeave) {
  const auto books = books_of(100, {tenant(10, 80, 0), tenant(30, 100, 70), tenant(0, 100, 0),
                                    tenant(50, 100, 0, 5, false)});
  EXPECT_EQ(reach(*books, 0), Pages(70));
  EXPECT_EQ(reach(*books, 1), Pages(90));
  EXPECT_EQ(reach(*books, 2), Pages(60)) << "the dead are guaranteed nothing";
  books->tenants[0].max = Pages(50);
  EXPECT_EQ(reach(*books, 0), Pages(50));
  books->pool = Pages(20);
  EXPECT_EQ(reach(*books, 0), Pages(0));
}

TEST(GrantTest, NoFloorWithoutAnyoneAlive) {
  const auto books = books_of(100, {tenant(0, 100, 0), tenant(50, 100, 0, 30, false)});
  EXPECT_EQ(books->tenants[1].floor(), Pages(0));
  EXPECT_TRUE(may_grant(*books, 0, Pages(70)));
}

TEST(GrantTest, OverdrawnBooksGrantNothing) {
  const auto books = books_of(100, {tenant(0, 100, 80), tenant(0, 100, 80)});
  EXPECT_EQ(books->free(), Pages(0));
  EXPECT_FALSE(may_grant(*books, 0, Pages(1)));
}

TEST(GrantTest, PromisesWhatTheOthersLeave) {
  const auto books = books_of(100, {tenant(30, 100, 10), tenant(0, 100, 0, 20, false)});
  EXPECT_TRUE(may_promise(*books, 2, Pages(50)));
  EXPECT_FALSE(may_promise(*books, 2, Pages(51)));
  // Its own limbo will be its own again.
  EXPECT_TRUE(may_promise(*books, 1, Pages(70)));
  EXPECT_FALSE(may_promise(*books, 1, Pages(71)));
}

// Whatever is granted, freed, and let die, in whatever order: free covers all floors, no maximum
// is exceeded.
TEST(GrantTest, FloorsStayCoveredUnderRandomLoad) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    const auto upto = [&](std::uint64_t n) { return random() % (n + 1); };
    Books books;
    books.pool = Pages(200);
    for (int step = 0; step < 2000; ++step) {
      const auto who = static_cast<std::uint32_t>(upto(5));
      TenantBook& one = books.tenants[who];
      const Pages amount(upto(60));
      switch (upto(4)) {
        case 0: {  // join
          if (one.living) break;
          const Pages min(upto(80));
          one.min = may_promise(books, who, min) ? min : Pages();
          one.max = one.min + Pages(upto(100));
          one.living = true;
          books.tenants_end = std::max(books.tenants_end, who + 1);
          break;
        }
        case 1:
        case 2:
          if (one.living && may_grant(books, who, amount)) {
            one.charged += amount;
            books.charged += amount;
          }
          break;
        case 3: {  // uncharge, or bury one member of several
          const Pages part = std::min(amount, one.charged);
          one.charged -= part;
          books.charged -= part;
          if (upto(3) == 0) {
            one.limbo += part;
            books.limbo += part;
          }
          break;
        }
        default:  // die, or come back from limbo
          if (upto(3) == 0) {
            books.charged -= one.charged;
            books.limbo += one.charged;
            one.limbo += one.charged;
            one.charged = Pages();
            one.living = false;
          } else {
            books.limbo -= one.limbo;
            one.limbo = Pages();
          }
      }
      Pages floors;
      for (const TenantBook& each : books.tenants) {
        floors += each.floor();
        ASSERT_LE(each.charged, each.max);
      }
      ASSERT_LE(books.charged + books.limbo, books.pool) << "seed " << seed << " step " << step;
      ASSERT_GE(books.free(), floors) << "seed " << seed << " step " << step;
    }
  }
}

}  // namespace
}  // namespace kvcached::ledger
