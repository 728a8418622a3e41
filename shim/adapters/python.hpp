// Reaches CPython from inside a preloaded library, with neither its headers nor linking it.
#pragma once

namespace kvcached::adapters {

// Somebody looks up a "PyInit_…" symbol: a Python interpreter is about to load an extension module.
// The first such call of a process schedules the adapters' bootstrap to run in the interpreter's
// main thread at its next safe point; later calls return at once. Does nothing when adapters are
// switched off or the interpreter is not up yet (then the next look-up tries again). Any thread,
// with or without the interpreter's lock.
void python_seen() noexcept;

}  // namespace kvcached::adapters
