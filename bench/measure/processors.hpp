// Where the threads of this process run.
#pragma once

#include <initializer_list>
#include <string_view>

namespace kvcached::bench {

// Has the threads of these names run on one processor, and the caller on another, from now on: the
// same calls take up to a third longer on one than on the other, for as long as the threads stay
// where they are. False when one was not found, or there is only one processor.
bool run_aside(std::initializer_list<std::string_view> names);

}  // namespace kvcached::bench
