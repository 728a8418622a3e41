// A new pool's file, made so that it is whole before anybody can find it.
#pragma once

#include <string>

#include "policy/ledger/layout.hpp"
#include "policy/ledger/neighbours.hpp"

namespace kvcached::ledger {

// Makes the file `name` in the directory, as a pool without members and with the mode that its
// directory asks for. Ok also where somebody else was faster: then theirs lies there. A maker that
// dies leaves nothing of that name; what it leaves, the next one removes.
Answer make_file(int directory, const std::string& name, const OpenRequest& request);

// For a file that has its name already, of its maker's or of nobody's: its space, and its content.
// The latter needs the mutex.
Answer allocate(int directory, int file);
void write_header(layout::File& file, const OpenRequest& request) noexcept;

}  // namespace kvcached::ledger
