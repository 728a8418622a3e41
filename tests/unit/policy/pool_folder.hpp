// A temporary folder with a pool in it, and a clock that a test turns by hand.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "policy/ledger/file.hpp"
#include "policy/ledger/ledger.hpp"

namespace kvcached::ledger {

class ManualClock final : public Clock {
 public:
  Instant now() const noexcept override { return now_; }
  void advance(Duration by) { now_ += by; }

 private:
  Instant now_{std::chrono::hours(1)};
};

class PoolFolder : public testing::Test {
 protected:
  PoolFolder() {
    root_ = (std::filesystem::temp_directory_path() / "pool-XXXXXX").string();
    path_ = ::mkdtemp(root_.data());
    for (std::size_t i = 0; i < gpu_.size(); ++i) gpu_[i] = static_cast<std::uint8_t>(i * 17);
  }
  ~PoolFolder() override { std::filesystem::remove_all(root_); }

  OpenRequest request(std::uint64_t pages) const { return {path_, gpu_, Pages(pages)}; }
  std::string file() const { return path_ + "/" + file_name(gpu_); }

  std::unique_ptr<Ledger> open(std::uint64_t pages = 100) {
    std::unique_ptr<Ledger> ledger = Ledger::open(request(pages), clock_, refusal_, complaint_);
    EXPECT_NE(ledger, nullptr) << complaint_;
    return ledger;
  }
  // The refusal; the line is in complaint_.
  Refusal refused(std::uint64_t pages = 100) {
    complaint_.clear();
    EXPECT_EQ(Ledger::open(request(pages), clock_, refusal_, complaint_), nullptr);
    EXPECT_EQ(complaint_.find('\n'), std::string::npos);
    EXPECT_NE(complaint_.find(path_), std::string::npos) << complaint_;
    return refusal_;
  }
  std::unique_ptr<Ledger> member(std::string_view tenant, std::uint64_t min = 0,
                                 std::uint64_t max = Pages::max().value,
                                 std::uint64_t pages = 100) {
    std::unique_ptr<Ledger> ledger = open(pages);
    const JoinRequest join{tenant, {Pages(min), Pages(max), 100}, "test"};
    EXPECT_TRUE(ledger->join(join, complaint_)) << complaint_;
    return ledger;
  }

  // What a member says that can give back, in stripes of so many pages, of whose pages `used` hold
  // live blocks, and that needs no more.
  static Figures figures(std::uint64_t used, std::uint64_t stripe) {
    Figures figures;
    figures.used = figures.demand = Pages(used);
    figures.stripe = Pages(stripe);
    return figures;
  }
  // In stripes of five. It says besides how much it will use, be it more or less.
  static void use_and_need(Ledger& member, std::uint64_t used, std::uint64_t fragmented,
                           std::uint64_t demand) {
    Figures told = figures(used, 5);
    told.fragmented = Pages(fragmented);
    told.demand = Pages(demand);
    member.publish(told);
  }

  std::string root_;
  std::string path_;  // the pool's directory: root_, unless a test chose another
  GpuUuid gpu_{};
  ManualClock clock_;
  Refusal refusal_ = Refusal::ok;
  std::string complaint_;
};

inline Bytes free_pages(std::uint64_t pages) { return bytes_of(Pages(pages)); }

}  // namespace kvcached::ledger
