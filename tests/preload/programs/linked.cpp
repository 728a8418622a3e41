// link: -lcuda
// A program linked with the driver's library.
#include "tests/preload/programs/scenario.hpp"

int main() {
  // Before anything was called: nobody has opened the driver's library by name.
  void* asked = nullptr;
  cuGetProcAddress_v2("cuMemAlloc", &asked, 12000, 0, nullptr);
  scenario::say("asked", asked != nullptr);
  scenario::Driver driver;
#define SCENARIO_LINK(symbol, name, version) driver.symbol = &symbol;
  SCENARIO_FUNCTIONS(SCENARIO_LINK)
  driver.cuMemsetD8 = &cuMemsetD8_v2;
  driver.cuMemcpyHtoD = &cuMemcpyHtoD_v2;
  driver.cuMemcpyDtoH = &cuMemcpyDtoH_v2;
  return scenario::run(driver);
}
