// Which devices may access which device's memory, and what is mapped there: an access that is
// enabled later holds for memory that is mapped already. Pure; the caller locks.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <new>

#include "shim/driver/driver.hpp"

namespace kvcached::driver {

class Peers {
 public:
  static constexpr int kDevices = 64;  // others are nobody's peers

  struct Mapping {
    Bytes size;  // none: nothing is mapped there any more
    DeviceId device;
  };

  // False when it was so already.
  bool enable(DeviceId owner, DeviceId peer) noexcept { return set(owner, peer, true); }
  bool disable(DeviceId owner, DeviceId peer) noexcept { return set(owner, peer, false); }

  template <class F>
  void for_each_of(DeviceId owner, F f) const noexcept {
    if (!known(owner)) return;
    for (int peer = 0; peer < kDevices; ++peer)
      if ((of_[static_cast<std::size_t>(owner.ordinal)] >> peer & 1U) != 0) f(DeviceId{peer});
  }

  // False without memory for it, which only an address that was never mapped before takes.
  bool mapped(Address at, Mapping mapping) noexcept try {
    mappings_[at] = mapping;
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
  void unmapped(Address at) noexcept {
    const auto found = mappings_.find(at);
    if (found != mappings_.end()) found->second.size = Bytes();
  }
  // The addresses are given up.
  void forget(Address base, Bytes size) noexcept {
    mappings_.erase(mappings_.lower_bound(base), mappings_.lower_bound(base + size.value));
  }
  const std::map<Address, Mapping>& mappings() const noexcept { return mappings_; }

 private:
  static bool known(DeviceId device) noexcept {
    return device.ordinal >= 0 && device.ordinal < kDevices;
  }
  bool set(DeviceId owner, DeviceId peer, bool enabled) noexcept {
    if (!known(owner) || !known(peer)) return false;
    std::uint64_t& peers = of_[static_cast<std::size_t>(owner.ordinal)];
    const std::uint64_t bit = std::uint64_t{1} << peer.ordinal;
    const bool changed = ((peers & bit) != 0) != enabled;
    peers = enabled ? peers | bit : peers & ~bit;
    return changed;
  }

  std::array<std::uint64_t, kDevices> of_{};  // by owner, a bit for each peer
  std::map<Address, Mapping> mappings_;
};

}  // namespace kvcached::driver
