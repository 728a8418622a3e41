// Room on a GPU for plain memory, at the cost of the pool.
#pragma once

#include "policy/clock.hpp"
#include "shim/driver/driver.hpp"
#include "shim/member/member.hpp"

namespace kvcached::member {

// Waits until `size` bytes are free on the device because others in the pool have given back what
// they hold: first what is idle, then, by their own means, what is above their share. False when
// they do not hold that much, when it is more than this tenant may have, or at the deadline. What
// came free is nobody's then: whoever asks the driver first has it.
bool wait_for_others(Member& member, driver::Driver& driver, driver::DeviceId device, Bytes size,
                     Instant deadline, const Clock& clock) noexcept;

}  // namespace kvcached::member
