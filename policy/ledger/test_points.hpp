// Named places in the ledger's critical sections at which a test kills or stops the process, to
// prove that a death there leaves the account right. Nothing is set outside tests.
#pragma once

namespace kvcached::ledger {

inline void (*test_point_hook)(const char* name) = nullptr;

inline void test_point(const char* name) noexcept {
  if (test_point_hook != nullptr) test_point_hook(name);
}

}  // namespace kvcached::ledger
