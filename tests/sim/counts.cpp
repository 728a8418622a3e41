// What the process has of the simulated driver, for tests that look for leaks. No driver has it.
#include "tests/sim/event.hpp"
#include "tests/sim/space.hpp"

/// Reservations, handles, mappings and events.
extern "C" __attribute__((visibility("default"))) void cuSimulatedCounts(std::size_t out[4]) {
  const sim::Space::Counts counts = sim::Space::get().counts();
  out[0] = counts.reservations;
  out[1] = counts.handles;
  out[2] = counts.mappings;
  out[3] = sim::count_events();
}
