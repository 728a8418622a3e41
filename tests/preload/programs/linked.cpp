// link: -lcuda
// A program linked with the driver's library.
#include "tests/preload/programs/scenario.hpp"

int main() {
  scenario::Driver driver;
#define SCENARIO_LINK(symbol, name, version) driver.symbol = &symbol;
  SCENARIO_FUNCTIONS(SCENARIO_LINK)
  driver.cuMemsetD8 = &cuMemsetD8_v2;
  driver.cuMemcpyHtoD = &cuMemcpyHtoD_v2;
  driver.cuMemcpyDtoH = &cuMemcpyDtoH_v2;
  return scenario::run(driver);
}
