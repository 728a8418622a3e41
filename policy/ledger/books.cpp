#include "policy/ledger/books.hpp"

#include <algorithm>
#include <cstring>
#include <ctime>

#include "policy/ledger/test_points.hpp"

namespace kvcached::ledger {
namespace {

// A writer is done within a microsecond, so what still looks half-written after 5 ms was left by a
// dead or stopped one.
constexpr int kReadTries = 64;
constexpr int kTriesAwake = 4;
constexpr timespec kReadSleep{0, 20'000};

template <std::size_t N>
using Packed = std::array<std::uint64_t, N / 8>;

template <std::size_t N>
Packed<N> pack(std::string_view text) noexcept {
  std::array<char, N> bytes{};
  text.copy(bytes.data(), N - 1);
  Packed<N> words{};
  std::memcpy(words.data(), bytes.data(), N);
  return words;
}

template <std::size_t N>
void set_text(layout::Text<N>& to, std::string_view text) noexcept {
  const Packed<N> words = pack<N>(text);
  for (std::size_t i = 0; i < words.size(); ++i) set(to.words[i], words[i]);
}

template <std::size_t N>
Packed<N> copy(const layout::Text<N>& from) noexcept {
  Packed<N> words{};
  for (std::size_t i = 0; i < words.size(); ++i) {
    words[i] = from.words[i].load(std::memory_order_acquire);
  }
  return words;
}

// Others' text goes to terminals and into JSON: only printable ASCII gets through.
template <std::size_t WORDS>
std::string unpack(const std::array<std::uint64_t, WORDS>& words) {
  std::array<char, WORDS * 8> bytes{};
  std::memcpy(bytes.data(), words.data(), bytes.size());
  std::string text(bytes.begin(), std::find(bytes.begin(), bytes.end(), '\0'));
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

template <class T>
T get(const std::atomic<T>& cell) noexcept {
  return cell.load(std::memory_order_acquire);
}

struct Texts {
  Packed<64> command;
  Packed<32> adapter;
  Packed<160> adapter_state;
  Packed<64> model;
};

void copy_slot(const layout::Slot& slot, MemberState& member, Texts& texts) noexcept {
  member.generation = get(slot.generation);
  member.pid = get(slot.pid);
  member.pid_namespace = get(slot.pid_namespace);
  Figures& figures = member.figures;
  figures.used = Pages(get(slot.used));
  figures.fragmented = Pages(get(slot.fragmented));
  figures.warm = Pages(get(slot.warm));
  test_point("read.half");
  figures.want = Pages(get(slot.want));
  figures.reserved = Bytes(get(slot.reserved));
  figures.short_grants = get(slot.short_grants);
  figures.grows = get(slot.grows);
  figures.releases = get(slot.releases);
  figures.demand = Pages(get(slot.demand));
  figures.stripe = Pages(get(slot.stripe));
  figures.least = Pages(get(slot.least));
  const Bytes most = bytes_of(Pages(layout::kMaxPoolPages));
  figures.plain = std::min(Bytes(get(slot.plain)), most);
  figures.plain_peak = std::min(Bytes(get(slot.plain_peak)), most);
  figures.fitting.reset();
  if (const std::uint32_t told = get(slot.fitting); told != 0) figures.fitting = told - 1;
  member.trimmed = get(slot.trimmed);
  member.heard = Instant(Duration(get(slot.heartbeat)));
  texts.command = copy(slot.command);
  texts.adapter = copy(slot.adapter);
  texts.adapter_state = copy(slot.adapter_state);
  texts.model = copy(slot.model);
  ModelShape& model = member.model;
  model.layers = get(slot.layers);
  model.kv_heads = get(slot.kv_heads);
  model.head_dim = get(slot.head_dim);
  model.bytes_per_element = get(slot.bytes_per_element);
  model.max_seq_len = get(slot.max_seq_len);
  model.block_tokens = get(slot.block_tokens);
  model.bytes_per_token = get(slot.bytes_per_token);
}

Pages max_of(const layout::Tenant& tenant, Pages pool) noexcept {
  return std::min(Pages(get(tenant.max_pages)), pool);
}

Pages min_of(const layout::Tenant& tenant, Pages max) noexcept {
  return std::min(Pages(get(tenant.min_pages)), max);
}

}  // namespace

std::uint32_t slots_end(const layout::File& file) noexcept {
  return std::min(get(file.header.slots_used), layout::kSlots);
}

SlotAccount account_of(const layout::File& file, std::uint32_t slot, Pages most) noexcept {
  constexpr std::uint64_t kCharge = (1ULL << layout::kTenantShift) - 1;
  constexpr std::uint64_t kTenant = (1ULL << (layout::kStateShift - layout::kTenantShift)) - 1;
  const std::uint64_t word = get(file.accounts[slot]);
  const auto state = static_cast<layout::SlotState>(word >> layout::kStateShift);
  const bool known = state == layout::SlotState::live || state == layout::SlotState::limbo;
  const auto tenant = static_cast<std::uint32_t>(word >> layout::kTenantShift & kTenant);
  return {known ? state : layout::SlotState::free, std::min(tenant, layout::kTenants),
          std::min(Pages(word & kCharge), most)};
}

void set_account(layout::File& file, std::uint32_t slot, const SlotAccount& account) noexcept {
  set(file.accounts[slot],
      std::uint64_t{static_cast<std::uint32_t>(account.state)} << layout::kStateShift |
          std::uint64_t{account.tenant} << layout::kTenantShift | account.charged.value);
}

std::uint32_t tenant_of_living(const layout::File& file, std::uint32_t slot) noexcept {
  const SlotAccount account = account_of(file, slot, {});
  return account.state == layout::SlotState::live ? account.tenant : layout::kTenants;
}

PoolSize size_of(const layout::File& file, Pages most) noexcept {
  return {std::min(Pages(get(file.header.pool_pages)), most), most};
}

PoolSize size_of(const layout::File& file) noexcept {
  const std::uint64_t told = std::max(get(file.header.gpu_pages), get(file.header.pool_pages));
  return size_of(file, Pages(std::min(told, layout::kMaxPoolPages)));
}

void read_books(const layout::File& file, PoolSize size, const SlotSet& dead,
                Books& books) noexcept {
  const Pages pool = size.now;
  books.pool = pool;
  books.most = size.most;
  books.charged = books.limbo = Pages{};
  books.shortfall = std::min(Pages(get(file.header.shortfall)), pool);
  for (std::uint32_t i = 0; i < books.tenants_end; ++i) books.tenants[i] = TenantBook{};
  books.tenants_end = 0;
  books.slots_end = slots_end(file);
  for (std::uint32_t k = 0; k < books.slots_end; ++k) {
    const SlotAccount account = account_of(file, k, size.most);
    if (account.state == layout::SlotState::free) continue;
    const bool living = account.state == layout::SlotState::live && !dead[k];
    (living ? books.charged : books.limbo) += account.charged;
    if (account.tenant >= layout::kTenants) continue;
    TenantBook& tenant = books.tenants[account.tenant];
    (living ? tenant.charged : tenant.limbo) += account.charged;
    tenant.living = tenant.living || living;
    books.tenants_end = std::max(books.tenants_end, account.tenant + 1);
  }
  // Not the weight: it lies among words that every plan writes.
  for (std::uint32_t i = 0; i < books.tenants_end; ++i) {
    books.tenants[i].max = max_of(file.tenants[i], pool);
    books.tenants[i].min = min_of(file.tenants[i], books.tenants[i].max);
  }
}

void draw_near(const layout::File& file, std::uint32_t own, std::uint32_t end) noexcept {
  constexpr std::uint32_t kInALine = 64 / sizeof(layout::Account);
  for (std::uint32_t k = 0; k < end; k += kInALine) __builtin_prefetch(&file.accounts[k]);
  __builtin_prefetch(&file.accounts[own], 1);
}

TenantLimits limits_of(const layout::Tenant& tenant, Pages pool) noexcept {
  TenantLimits limits;
  limits.max = max_of(tenant, pool);
  limits.min = min_of(tenant, limits.max);
  limits.weight = std::max(get(tenant.weight), 1U);
  return limits;
}

std::string name_of(const layout::Tenant& tenant) { return unpack(copy(tenant.name)); }

bool is_named(const layout::Tenant& tenant, std::string_view name) noexcept {
  return copy(tenant.name) == pack<48>(name);
}

void set_name(layout::Tenant& tenant, std::string_view name) noexcept {
  set_text(tenant.name, name);
}

void read_texts(const layout::Slot& slot, MemberState& member) {
  Texts texts{};
  for (int i = 0; i < kReadTries; ++i) {
    const std::uint32_t before = get(slot.sequence);
    copy_slot(slot, member, texts);
    if (before % 2 == 0 && slot.sequence.load(std::memory_order_relaxed) == before) break;
    test_point("read.again");
    if (i >= kTriesAwake) ::nanosleep(&kReadSleep, nullptr);
  }
  member.command = unpack(texts.command);
  member.adapter = unpack(texts.adapter);
  member.adapter_state = unpack(texts.adapter_state);
  member.model.name = unpack(texts.model);
}

SlotChange::SlotChange(layout::Slot& slot) noexcept
    : slot_(slot), odd_(slot.sequence.load(std::memory_order_relaxed) | 1U) {
  slot_.sequence.store(odd_, std::memory_order_relaxed);
}

SlotChange::~SlotChange() { set(slot_.sequence, odd_ + 1); }

void set_command(layout::Slot& slot, std::string_view text) noexcept {
  set_text(slot.command, text);
}

void set_adapter(layout::Slot& slot, std::string_view name, std::string_view state) noexcept {
  set_text(slot.adapter, name);
  set_text(slot.adapter_state, state);
}

void set_model(layout::Slot& slot, std::string_view name, const ModelShape& shape) noexcept {
  set_text(slot.model, name);
  set(slot.layers, shape.layers);
  set(slot.kv_heads, shape.kv_heads);
  set(slot.head_dim, shape.head_dim);
  set(slot.bytes_per_element, shape.bytes_per_element);
  set(slot.max_seq_len, shape.max_seq_len);
  set(slot.block_tokens, shape.block_tokens);
  set(slot.bytes_per_token, shape.bytes_per_token);
}

void clear_texts(layout::Slot& slot) noexcept {
  for (layout::U64* cell :
       {&slot.used, &slot.warm, &slot.want, &slot.reserved, &slot.short_grants, &slot.grows,
        &slot.releases, &slot.fragmented, &slot.claim, &slot.demand, &slot.stripe, &slot.least,
        &slot.plain, &slot.plain_peak, &slot.pid_namespace}) {
    set(*cell, std::uint64_t{0});
  }
  set(slot.pid, std::int64_t{0});
  set(slot.trimmed, 0U);
  set(slot.fitting, 0U);
  for (layout::I64* cell : {&slot.want_since, &slot.claim_since, &slot.heartbeat}) {
    set(*cell, std::int64_t{0});
  }
  set_text(slot.command, {});
  set_adapter(slot, {}, {});
  set_model(slot, {}, {});
}

}  // namespace kvcached::ledger
