// One allocation of the engine: its whole address range is reserved, and every piece of it is
// either backed by an extent of its own or aliased to scratch.
//
// Pieces partition the range. A mapping is all or nothing, so a piece changes only as a whole, and
// the partition changes only while nothing is backed.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "policy/units.hpp"
#include "shim/cache/budget.hpp"
#include "shim/cache/page_runs.hpp"
#include "shim/cache/result.hpp"
#include "shim/cache/scratch.hpp"
#include "shim/cache/worker.hpp"
#include "shim/driver/driver.hpp"

namespace kvcached::cache {

// What a buffer stands on. All three outlive every buffer.
struct Ground {
  driver::Driver& driver;
  Budget& budget;
  Scratch& scratch;  // of the buffer's device
};

// Who decides about a buffer's backing.
enum class Use : std::uint8_t {
  unclaimed,  // nobody yet: all scratch
  claimed,    // a worker (a cache, or byte ranges)
  whole,      // nobody any more: backed as a whole, plain memory
  gone,       // destroyed
};

// Thread-safe: a lock of its own, held across driver calls of one piece (back_whole, repartition
// and destroy: of all). Backing a piece is paid by the caller: it charges missing() pages before
// back() and returns what back() did not keep; unback() and sweep() tell what may be uncharged.
// destroy() and back_whole() settle with the budget themselves.
class Buffer {
 public:
  // Reserves `requested` bytes, rounded up to pages, and aliases them to scratch. invalid: zero
  // bytes, or more than 2^32 pages. On failure `out` is what the driver did not take back yet, to
  // be buried (see Registry); as a rule nothing.
  static Result create(const Ground& ground, Bytes requested, driver::ContextId context,
                       std::shared_ptr<Buffer>& out) noexcept;
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  driver::Address base() const noexcept { return base_; }
  Bytes requested() const noexcept { return requested_; }
  Bytes reserved() const noexcept { return bytes_of(Pages(pages_)); }
  driver::DeviceId device() const noexcept { return scratch_.device(); }
  driver::ContextId context() const noexcept { return context_; }
  driver::Driver& driver() const noexcept { return driver_; }
  Budget& budget() const noexcept { return budget_; }
  Use use() const noexcept { return use_.load(std::memory_order_acquire); }
  // No two buffers of a process have the same.
  std::uint64_t id() const noexcept { return id_; }

  // Whether the program wants synchronous copies and fills that touch the buffer to wait for their
  // end (CU_POINTER_ATTRIBUTE_SYNC_MEMOPS). Kept here, seen to by others.
  bool sync_memops() const noexcept { return sync_memops_.load() == SyncMemops::on; }
  // True where that changes it; never after end_sync_memops().
  bool set_sync_memops(bool on) noexcept;
  // Off for good, whoever sets it meanwhile. Whether it was on.
  bool end_sync_memops() noexcept {
    return sync_memops_.exchange(SyncMemops::over) == SyncMemops::on;
  }

  // Pages charged for this buffer: backed, or not releasable.
  Pages held() const noexcept { return Pages(held_.load(std::memory_order_relaxed)); }
  // Bytes of [offset, offset + bytes) that are backed and needed.
  Bytes resident(Bytes offset, Bytes bytes) const noexcept;

  // Backs everything, for good, or nothing: shortage when the pool or the GPU refuses. invalid when
  // a worker has claimed the buffer. pre: no work that uses the buffer is in flight.
  Result back_whole() noexcept;

  // The same for the pages that [offset, offset + bytes) touches; whole when that was the last of
  // it. pre: no work in flight uses what is backed by it.
  Result back_part(Bytes offset, Bytes bytes) noexcept;

  // Unmaps, releases and uncharges everything and gives the addresses back; closes the worker that
  // claimed the buffer. First waits for the work of the context. not_now: to be called again (see
  // Registry::bury), because a capture is open or the driver refused something. Each step goes on
  // where one fails; pages that the driver did not release stay charged. It gives up, with ok and a
  // line in the log, after many refusals, or when the context is lost.
  Result destroy() noexcept;
  // The same for a context that the engine destroyed or reset: waits for nothing, and all pages
  // count as released, whatever the driver says.
  Result abandon() noexcept;

  // ---- For the worker that claims the buffer.

  // unclaimed -> claimed by `worker`. invalid: somebody else's; lost: gone.
  Result claim(std::shared_ptr<Worker> worker) noexcept;
  // claimed -> unclaimed. pre: nothing is backed, as far as the driver allowed.
  void unclaim() noexcept;
  std::shared_ptr<Worker> worker() const noexcept;

  // Changes the partition. pre: nothing is backed, no work of the context in flight. On failure
  // some parts may have the new partition and some the old one; all of it is scratch (or lost) as
  // before. invalid: `runs` does not partition the buffer.
  Result repartition(std::span<const PageRun> runs) noexcept;

  std::size_t piece_count() const noexcept;
  PageRun piece_run(std::size_t piece) const noexcept;
  bool piece_lost(std::size_t piece) const noexcept;

  // Pages that back(piece) would create.
  Pages missing(std::size_t piece) const noexcept;
  // One more needs this piece. pre: missing(piece) pages are charged. `kept`: how many of them stay
  // charged; all when ok, normally none otherwise. Afterwards the piece is backed, or as it was, or
  // lost.
  Result back(std::size_t piece, Pages& kept) noexcept;
  // One less needs it; the last lets the memory go. pre: the work that uses it is done. `freed`:
  // pages to uncharge. When the driver refuses, the piece stays backed but unneeded (or its extent
  // unreleased) until sweep(), or is lost.
  Result unback(std::size_t piece, Pages& freed) noexcept;

  // Pieces whose memory should have gone and has not.
  std::size_t stranded() const noexcept { return stranded_.load(std::memory_order_relaxed); }
  // Tries again to let them go.
  void sweep(Pages& freed) noexcept;

 private:
  struct Piece {
    PageRun run;
    bool backed = false;  // mapped to `handle`, not to scratch
    bool lost = false;    // mapped to nothing; never touched again
    bool held = false;    // `handle` exists and is charged
    bool mapped = true;   // to something; false only at the end
    bool owned = false;   // at the end: `handle` is still to be released
    std::uint32_t needs = 0;
    driver::Handle handle{};

    bool stranded() const { return held && (!backed || needs == 0); }
  };

  enum class SyncMemops : std::uint8_t { off, on, over };

  Buffer(const Ground& ground, Bytes requested, driver::ContextId context) noexcept;

  // buffer.cpp: addresses, aliases, partition.
  Result reserve_and_alias();
  Result alias_all(Order cap);
  Result take_scratch(std::uint32_t orders) noexcept;
  void give_scratch(std::uint32_t orders) noexcept;
  void give_unused_scratch() noexcept;
  bool partitions(std::span<const PageRun> runs) const noexcept;
  // Appends to `now` what is there afterwards: what was meant to, or what was before; either may
  // have lost pieces where it fails. pre: `now` has room for either.
  Result realias(std::span<Piece> before, std::span<const PageRun> after,
                 std::vector<Piece>& now) noexcept;
  void restore(Piece& unmapped) noexcept;
  // Makes a piece begin at `page`, if the one that holds it is scratch and can be divided.
  void cut(std::uint32_t page) noexcept;
  Result withdraw() noexcept;
  Result end(bool context_gone) noexcept;

  // backing.cpp: extents.
  Result refuse_to_back() const noexcept;
  Result back_pieces(std::size_t from, std::size_t to) noexcept;
  Result back_locked(Piece& piece, Pages& kept) noexcept;
  Result strip_locked(Piece& piece, Pages& freed) noexcept;
  bool release_extent(Piece& piece) noexcept;
  bool settle_release(Piece& piece, Pages& freed) noexcept;

  driver::Address address(const PageRun& run) const noexcept;
  static Bytes bytes(const PageRun& run) noexcept { return bytes_of(Pages(run.count())); }
  driver::Status alias(const PageRun& run) noexcept;
  driver::Status unalias(const PageRun& run) noexcept;
  driver::Status unmap(const Piece& piece) noexcept;

  driver::Driver& driver_;
  Budget& budget_;
  Scratch& scratch_;
  const driver::ContextId context_;
  const Bytes requested_;
  const std::uint32_t pages_;
  const std::uint64_t id_;
  driver::Address base_ = 0;
  std::atomic<SyncMemops> sync_memops_{SyncMemops::off};

  mutable std::mutex mutex_;  // guards all below
  std::vector<Piece> pieces_;
  std::uint32_t orders_ = 0;  // bit n: we hold the scratch extent of order n
  std::shared_ptr<Worker> worker_;
  bool has_range_ = false;
  int refusals_ = 0;       // of the driver, since it was to be destroyed
  int waits_refused_ = 0;  // before that: to wait for work that may use it
  // Written under the lock, read without.
  std::atomic<Use> use_{Use::unclaimed};
  std::atomic<std::uint64_t> held_{0};
  std::atomic<std::size_t> stranded_{0};

  friend class BufferStack;
  std::shared_ptr<Buffer> next_;  // in the stack that this one is in
};

}  // namespace kvcached::cache
