#include "shim/adapters/python_abi.hpp"

#include <dlfcn.h>

namespace kvcached::adapters {

namespace {
template <typename Function>
bool find(Function& out, const char* name) noexcept {
  out = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
  return out != nullptr;
}
}  // namespace

bool Python::resolve() noexcept {
#define USE(Result, Name, Arguments) \
  if (!find(Name, #Name)) return false;
  KVCACHED_PYTHON(USE)
#undef USE
  return true;
}

}  // namespace kvcached::adapters
