// A pool's file with arbitrary damage, before it is opened and while it is in use: whatever it
// says, nothing crashes, the books shown add up, and grants stay within the pool.
//
// The input is a series of writes of 8 bytes or more: place (3 bytes), kind (1 byte), content.
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "policy/ledger/control.hpp"
#include "policy/ledger/file.hpp"
#include "policy/ledger/ledger.hpp"

namespace {

using namespace kvcached;
using namespace kvcached::ledger;

void require(bool holds) {
  if (!holds) std::abort();
}

class ManualClock final : public Clock {
 public:
  Instant now() const noexcept override { return now_; }
  void advance(Duration by) { now_ += by; }

 private:
  Instant now_{std::chrono::hours(1)};
};

constexpr std::uint64_t kPool = 100;

struct Folder {
  Folder() {
    // Memory where there is any: each input is a file of its own.
    const std::filesystem::path memory = "/dev/shm";
    const bool usable = ::access(memory.c_str(), W_OK | X_OK) == 0;
    std::string pattern =
        ((usable ? memory : std::filesystem::temp_directory_path()) / "pool-XXXXXX").string();
    path = ::mkdtemp(pattern.data());
    request = {path, {}, Pages(kPool)};
    file = path + "/" + file_name({});
    // What a life of several members leaves: tenants, charges, limbo, texts.
    std::vector<std::unique_ptr<Ledger>> members;
    for (int i = 0; i < 4; ++i) {
      members.push_back(open());
      clock.advance(std::chrono::seconds(1));
      std::string complaint;
      require(members.back()->join(
          {"tenant" + std::to_string(i / 2), {Pages(5), Pages(50), 1}, "c"}, complaint));
      require(members.back()->charge(Pages(10)));
      members.back()->describe_model({"model", 32, 8, 128, 2, 8192, 16, 131072});
      Figures figures;
      figures.used = Pages(3);
      figures.stripe = Pages(1);
      figures.least = Pages(7);
      members.back()->publish(figures);
      members.back()->reap(bytes_of(Pages(kPool)));  // a record of history
    }
    members.pop_back();
    members.back()->reap(Bytes(0));
    std::ifstream stream(file, std::ios::binary);
    image.assign(std::istreambuf_iterator<char>(stream), {});
  }
  ~Folder() { std::filesystem::remove_all(path); }

  std::unique_ptr<Ledger> open() {
    Refusal refusal = Refusal::ok;
    std::string complaint;
    auto ledger = Ledger::open(request, clock, refusal, complaint);
    require((ledger != nullptr) == (refusal == Refusal::ok));
    require((ledger == nullptr) == !complaint.empty());
    require(complaint.find('\n') == std::string::npos);
    return ledger;
  }

  std::string path;
  std::string file;
  OpenRequest request;
  ManualClock clock;
  std::string image;
};

struct Damage {
  std::size_t place;
  std::string content;
};

// Kinds: bit 7, while in use; bit 6, anywhere; else bits 2-3, what is hit; bits 0-1, the length.
struct Plan {
  std::vector<Damage> before;
  std::vector<Damage> during;
  std::size_t size = layout::kFileSize;
};

Plan read_plan(const std::uint8_t* data, std::size_t size) {
  Plan plan;
  while (size >= 12) {
    const std::uint8_t kind = data[3];
    const std::size_t anywhere = data[0] | std::size_t{data[1]} << 8 | std::size_t{data[2]} << 16;
    std::size_t place = anywhere;
    const std::size_t length = std::min<std::size_t>(size - 4, std::size_t{4} << (kind & 3));
    switch (kind >> 2 & 3) {
      case 0:  // the header
        place %= sizeof(layout::Header);
        break;
      case 1: {  // the first slots and their accounts, field by field
        constexpr std::size_t kAccounts = 8 * sizeof(layout::Account);
        place = place % (kAccounts + 8 * sizeof(layout::Slot)) / 4 * 4;
        place += place < kAccounts ? offsetof(layout::File, accounts)
                                   : offsetof(layout::File, slots) - kAccounts;
        break;
      }
      case 2:  // the first tenants
        place = offsetof(layout::File, tenants) + place % (4 * sizeof(layout::Tenant)) / 4 * 4;
        break;
      default:  // history, around the records that there are
        place = offsetof(layout::File, moments) + place % (8 * sizeof(layout::Moment)) / 4 * 4;
    }
    if ((kind & 0x40) != 0) place = anywhere % layout::kFileSize;
    const char* const content = reinterpret_cast<const char*>(data + 4);
    (kind & 0x80 ? plan.during : plan.before).push_back({place, std::string(content, length)});
    if (kind == 0x7f) plan.size = place;
    data += 4 + length;
    size -= 4 + length;
  }
  return plan;
}

bool printable(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

void check(const Snapshot& books, bool of_member) {
  require(books.shortfall <= books.pool);
  require(books.charged + books.limbo + books.free ==
          std::max(books.pool - books.shortfall, books.charged + books.limbo));
  require(books.members.size() <= layout::kSlots && books.tenants.size() <= layout::kTenants);
  require(!of_member || books.pool <= Pages(kPool));
  for (const MemberState& member : books.members) {
    require(member.charged <= (of_member ? Pages(kPool) : Pages(layout::kMaxPoolPages)));
    require(member.command.size() <= 64 && member.adapter_state.size() <= 160);
    for (const char c : member.command + member.tenant + member.adapter + member.model.name) {
      require(c >= ' ' && c <= '~');
    }
  }
  for (const TenantState& tenant : books.tenants) {
    require(tenant.limits.min <= tenant.limits.max && tenant.limits.max <= books.pool);
    require(tenant.least <= Pages(layout::kMaxPoolPages));
    const TenantCounters& counters = tenant.counters;
    require(counters.below_min >= Duration::zero());
    require(std::max(counters.granted, counters.reclaimed) <= Pages(layout::kMaxPoolPages));
    require(counters.takers.size() <= layout::kTakers);
    for (const auto& taker : counters.takers) require(printable(taker.tenant));
  }
  require(books.plain() <= bytes_of(Pages(layout::kMaxPoolPages)));
  require(!books.gpu_free || *books.gpu_free <= *books.gpu_total);
  require(!books.unexplained() || *books.unexplained() <= bytes_of(*books.gpu_total));
}

void check(const History& history, Instant now) {
  require(history.moments.size() <= layout::kMoments);
  std::int64_t before = -1;
  const auto newest = now.time_since_epoch() / std::chrono::seconds(1);
  for (const Moment& moment : history.moments) {
    require(moment.second > before && moment.second <= newest && newest - moment.second < 600);
    before = moment.second;
    require(moment.free <= moment.pool && moment.pool <= Pages(layout::kMaxPoolPages));
    require(moment.tenants.size() <= layout::kMomentTenants);
    for (const auto& tenant : moment.tenants) require(printable(tenant.name));
  }
}

// A user's commands, whatever they meet: they do it, or say in one line why not; then the books
// hold.
void control(const Folder& folder, const Plan& plan) {
  const auto size = [&](std::size_t i) {
    const std::uint64_t pages = plan.during.size() > i ? plan.during[i].place % 128 : 20;
    return Size{bytes_of(Pages(pages)), 0, false};
  };
  std::uint32_t order = 0;
  for (const std::string& why :
       {change_limits(folder.path, {}, "fuzz", {size(0), size(1), 3U}, folder.clock),
        change_limits(folder.path, {}, "tenant0", {{}, size(2), {}}, folder.clock),
        change_pool(folder.path, {}, size(3), folder.clock),
        order_trim(folder.path, {}, "fuzz", order)}) {
    require(why.find('\n') == std::string::npos && why.size() < 300);
  }
}

void scribble(const Folder& folder, const std::vector<Damage>& damages) {
  const int file = ::open(folder.file.c_str(), O_RDWR | O_CLOEXEC);
  for (const Damage& damage : damages) {
    const std::size_t length = std::min(damage.content.size(), layout::kFileSize - damage.place);
    require(::pwrite(file, damage.content.data(), length, static_cast<off_t>(damage.place)) ==
            static_cast<ssize_t>(length));
  }
  ::close(file);
}

void live(Folder& folder, const Plan& plan) {
  const auto ledger = folder.open();
  if (!ledger) return;
  std::string complaint;
  if (!ledger->join({"fuzz", {Pages(10), Pages(60), 1}, "fuzz"}, complaint)) return;
  const bool charged = ledger->charge(Pages(20));
  scribble(folder, plan.during);
  ledger->publish({});
  if (ledger->charge(Pages(30))) require(ledger->charged() <= Pages(60));
  ledger->uncharge(Pages(10));
  require(ledger->charged() >= Pages(charged ? 10 : 0));
  check(ledger->snapshot(), true);
  require(ledger->reap(Bytes(0)) <= Pages(kPool));
  folder.clock.advance(std::chrono::seconds(6));
  ledger->reap(bytes_of(Pages(50)));
  ledger->describe_model({"m", 1, 1, 1, 1, 1, 1, 1});
  ledger->report_adapter("a", "b");
  check(ledger->snapshot(), true);
  require(!ledger->charge(Pages(kPool + 1)));
  control(folder, plan);
  const Duty duty = ledger->duty();
  require(duty.reclaim <= Pages(kPool));
  if (duty.trim) ledger->trimmed(*duty.trim);
  require(!ledger->duty().trim);
  if (ledger->charge(Pages(5), Pages(9))) require(ledger->charged() <= Pages(kPool));
  ledger->drop_claim();
  check(ledger->snapshot(), true);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Folder folder;
  const Plan plan = read_plan(data, size);
  std::ofstream(folder.file, std::ios::binary) << folder.image;
  scribble(folder, plan.before);
  require(::truncate(folder.file.c_str(), static_cast<off_t>(plan.size)) == 0);
  live(folder, plan);
  std::vector<std::string> complaints;
  for (const Snapshot& books : read_pools(folder.path, complaints)) check(books, false);
  const Instant now = folder.clock.now();
  for (const History& history : read_histories(folder.path, now, complaints)) check(history, now);
  require(complaints.size() <= 2);
  return 0;
}
