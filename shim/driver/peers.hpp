// Which devices may access which device's memory, and what is mapped there: an access that is
// enabled later holds for memory that is mapped already. Pure; the caller locks. What is not known
// for want of memory is told by the answer.
#pragma once

#include <algorithm>
#include <map>
#include <new>
#include <span>
#include <vector>

#include "shim/driver/driver.hpp"

namespace kvcached::driver {

class Peers {
 public:
  struct Mapping {
    Bytes size;
    DeviceId device;
  };

  // False when it was so already, or is not known now.
  bool enable(DeviceId owner, DeviceId peer) noexcept try {
    auto& peers = peers_[owner.ordinal];
    if (std::find(peers.begin(), peers.end(), peer) != peers.end()) {
      return false;
    }
    peers.push_back(peer);
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
  bool disable(DeviceId owner, DeviceId peer) noexcept {
    const auto found = peers_.find(owner.ordinal);
    return found != peers_.end() && std::erase(found->second, peer) != 0;
  }

  std::span<const DeviceId> of(DeviceId owner) const noexcept {
    const auto found = peers_.find(owner.ordinal);
    return found == peers_.end() ? std::span<const DeviceId>() : found->second;
  }

  // False: not known.
  bool mapped(Address at, Mapping mapping) noexcept try {
    mappings_[at] = mapping;
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
  void unmapped(Address at) noexcept { mappings_.erase(at); }
  const std::map<Address, Mapping>& mappings() const { return mappings_; }

 private:
  std::map<int, std::vector<DeviceId>> peers_;  // by the owner's ordinal
  std::map<Address, Mapping> mappings_;
};

}  // namespace kvcached::driver
