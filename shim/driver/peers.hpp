// Which devices may access which device's memory, and what is mapped there: an access that is
// enabled later holds for memory that is mapped already. Pure; the caller locks.
#pragma once

#include <algorithm>
#include <map>
#include <vector>

#include "shim/driver/driver.hpp"

namespace kvcached::driver {

class Peers {
 public:
  struct Mapping {
    Bytes size;
    DeviceId device;
  };

  // False when it was so already.
  bool enable(DeviceId owner, DeviceId peer) {
    auto& peers = peers_[owner.ordinal];
    if (std::find(peers.begin(), peers.end(), peer) != peers.end()) {
      return false;
    }
    peers.push_back(peer);
    return true;
  }
  bool disable(DeviceId owner, DeviceId peer) {
    return std::erase(peers_[owner.ordinal], peer) != 0;
  }

  const std::vector<DeviceId>& of(DeviceId owner) { return peers_[owner.ordinal]; }

  void mapped(Address at, Mapping mapping) { mappings_[at] = mapping; }
  void unmapped(Address at) { mappings_.erase(at); }
  const std::map<Address, Mapping>& mappings() const { return mappings_; }

 private:
  std::map<int, std::vector<DeviceId>> peers_;  // by the owner's ordinal
  std::map<Address, Mapping> mappings_;
};

}  // namespace kvcached::driver
