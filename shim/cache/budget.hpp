// What the cache floor needs to know of the pool: may I hold this many pages more? The member floor
// answers from the ledger; tests answer from a number.
#pragma once

#include "policy/units.hpp"

namespace kvcached::cache {

class Budget {
 public:
  virtual ~Budget() = default;

  // Charges `pages` to this process, all or nothing. Called before pages are created: the account
  // may overstate what is held, never understate it. `wish`: callers wait until so many pages are
  // ready for them, those that are so already included; refused, others in the pool are asked to
  // give back what they hold idle, until the wish is dropped. Thread-safe, as the next two; takes
  // no lock of the cache floor and makes no driver call.
  virtual bool charge(Pages pages, Pages wish) noexcept = 0;
  bool charge(Pages pages) noexcept { return charge(pages, {}); }
  // The process has one wish, the last that was refused, which is as old as the first. Whoever
  // makes it begins and drops it once: it stands until the last of them has dropped it. Neither
  // waits.
  virtual void begin_wish() noexcept = 0;
  virtual void drop_wish() noexcept = 0;

  // Returns pages that the driver has released (or never created). Thread-safe.
  virtual void uncharge(Pages pages) noexcept = 0;

  // The pool's size as far as this process may ever use it: bounds the size of stripes.
  virtual Pages limit() const noexcept = 0;
};

}  // namespace kvcached::cache
