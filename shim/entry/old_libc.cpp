// Stand-ins for libc functions newer than 2.34 that the static C++ runtime of a newer system pulls
// in, so that a library built there loads on an older one. Hidden: only this library sees them.
#include <link.h>
#include <sys/random.h>

#include <cstddef>
#include <cstdint>

namespace {

// What libc's structure of 2.35 begins with. The unwinder reads the last of these and nothing else.
struct Found {
  unsigned long long flags;
  void* map_start;
  void* map_end;
  void* link_map;
  void* eh_frame;  // the table of unwind information: the segment PT_GNU_EH_FRAME
};

struct Search {
  ElfW(Addr) address;
  void* eh_frame = nullptr;
};

int look_into(dl_phdr_info* object, std::size_t /*size*/, void* data) noexcept {
  auto& search = *static_cast<Search*>(data);
  bool inside = false;
  void* table = nullptr;
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const auto& part = object->dlpi_phdr[i];
    const ElfW(Addr) start = object->dlpi_addr + part.p_vaddr;
    if (part.p_type == PT_GNU_EH_FRAME) table = reinterpret_cast<void*>(start);
    inside = inside || (part.p_type == PT_LOAD && search.address - start < part.p_memsz);
  }
  if (inside) search.eh_frame = table;
  return inside ? 1 : 0;
}

}  // namespace

extern "C" {

// The unwinder has no other way to an object's unwind information once it was built to ask this: an
// answer of "no such object" would end the process at the first exception.
[[gnu::visibility("hidden")]] int kvcached_dl_find_object(void* address, Found* found) noexcept
    __asm__("_dl_find_object");
int kvcached_dl_find_object(void* address, Found* found) noexcept {
  Search search{reinterpret_cast<ElfW(Addr)>(address)};
  dl_iterate_phdr(look_into, &search);
  if (search.eh_frame == nullptr) return -1;
  found->eh_frame = search.eh_frame;
  return 0;
}

// Since 2.36; behind std::random_device.
[[gnu::visibility("hidden")]] std::uint32_t kvcached_arc4random() noexcept __asm__("arc4random");
std::uint32_t kvcached_arc4random() noexcept {
  std::uint32_t value = 0;
  while (getrandom(&value, sizeof value, 0) != static_cast<ssize_t>(sizeof value)) {
  }
  return value;
}
}
