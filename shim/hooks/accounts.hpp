// How much plain memory this process holds, by device and by the sizes it asked for. The driver's
// own figures would show other processes too.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "shim/driver/driver.hpp"

namespace kvcached::hooks {

struct Taken {
  Bytes size;
  driver::DeviceId device;
  driver::ContextId context{};  // that takes it along; none for physical memory
};

// Who tells how much memory a GPU has. NVIDIA's management library counts what the driver reserves
// for itself; cuMemGetInfo leaves that out.
enum class View : std::uint8_t { driver, management };

// Thread-safe. What is not listed is ignored: it was taken before the library looked, or there was
// no memory to list it.
class Accounts {
 public:
  void took(driver::Address at, Taken what) noexcept;

  // Forgets the allocation and says what it was. Called before the driver frees it, since the
  // address may be another thread's right after; took again undoes it.
  std::optional<Taken> gave(driver::Address at) noexcept;

  // The context was destroyed, with all that was allocated in it.
  void context_gone(driver::ContextId context) noexcept;

  // Physical memory that the program creates and maps itself: held until its last handle is
  // released and it is mapped nowhere.
  void created(std::uint64_t handle, Taken what) noexcept;
  void retained(std::uint64_t handle) noexcept;
  void released(std::uint64_t handle) noexcept;
  void mapped(driver::Address at, std::uint64_t handle) noexcept;
  void unmapped(driver::Address at, Bytes size) noexcept;

  Bytes held(driver::DeviceId device) noexcept;
  Bytes peak(driver::DeviceId device) noexcept;  // the most that was held

  // The value given first for the device as seen by one of the two, ever after.
  Bytes first_outside(driver::DeviceId device, View view, Bytes value) noexcept;

 private:
  struct Extent {
    Taken what;
    std::uint32_t users = 0;  // handles and mappings
  };
  struct Usage {
    Bytes now, peak;
    void add(Bytes size) noexcept;
  };
  void drop_user(std::uint64_t handle) noexcept;
  void drop(Taken what) noexcept;
  Usage on(driver::DeviceId device) noexcept;

  std::mutex mutex_;
  std::unordered_map<driver::Address, Taken> plain_;
  std::unordered_map<std::uint64_t, Extent> extents_;
  std::map<driver::Address, std::uint64_t> mappings_;
  std::map<int, Usage> held_;  // by ordinal
  std::map<std::pair<int, View>, Bytes> outside_;
};

// This process's.
Accounts& accounts() noexcept;

}  // namespace kvcached::hooks
