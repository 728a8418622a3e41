// What memory the work of a call uses, by the call's own arguments. One function for each shape of
// arguments; the table of entry/ says which call has which.
//
// Asked where the user has promised that arguments name all memory that kernels use
// (KVCACHED_HINTS=args), while some buffer is not backed; and of synchronous copies and fills,
// while some buffer's have to wait (sync_memops.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "policy/units.hpp"
#include "shim/driver/cuda_abi.hpp"
#include "shim/member/guesses.hpp"

namespace kvcached::hooks {

// A call's integer and pointer arguments, as the x86-64 convention passes them and the door saved
// them: the six of the registers, last one first, the return address, those of the stack.
class Arguments {
 public:
  explicit Arguments(const std::uint64_t* saved) noexcept : saved_(saved) {}

  template <class T>
  T at(unsigned index) const noexcept {
    const std::uint64_t word = saved_[index < 6 ? 5 - index : index + 1];
    if constexpr (std::is_pointer_v<T>) {
      return reinterpret_cast<T>(word);
    } else {
      return static_cast<T>(word);
    }
  }

 private:
  const std::uint64_t* saved_;
};

// What has been found so far. Addresses outside of [first, end) are not of interest.
class Touched {
 public:
  Touched(driver::Address first, driver::Address end) noexcept : first_(first), end_(end) {}

  // These bytes and no others.
  void range(driver::Address at, std::size_t bytes) noexcept;
  // The first and the last of `rows` ranges, and all between them.
  void rows(driver::Address at, std::size_t pitch, std::size_t width, std::size_t rows) noexcept;
  // Any byte of the buffer that holds the address, if one does.
  void buffer(driver::Address at) noexcept;
  // Nobody knows.
  void everything() noexcept { everything_ = true; }

  bool is_everything() const noexcept { return everything_; }
  std::span<const member::Touch> all() const noexcept { return all_; }

 private:
  void add(const member::Touch& touch) noexcept;

  driver::Address first_;
  driver::Address end_;
  bool everything_ = false;
  std::vector<member::Touch> all_;
};

// Never writes what the arguments point to, and reads only what the call itself reads.
using Touches = void (*)(const Arguments&, Touched&) noexcept;

namespace touches {

void everything(const Arguments&, Touched&) noexcept;
void nothing(const Arguments&, Touched&) noexcept;

// ---- touch_copies.cpp, named after the calls; several have the same arguments.
void fill8(const Arguments&, Touched&) noexcept;
void fill16(const Arguments&, Touched&) noexcept;
void fill32(const Arguments&, Touched&) noexcept;
void fill_rows8(const Arguments&, Touched&) noexcept;
void fill_rows16(const Arguments&, Touched&) noexcept;
void fill_rows32(const Arguments&, Touched&) noexcept;
void copy(const Arguments&, Touched&) noexcept;
void copy_peer(const Arguments&, Touched&) noexcept;
void copy_from_array(const Arguments&, Touched&) noexcept;
void copy_to_array(const Arguments&, Touched&) noexcept;
void copy_2d(const Arguments&, Touched&) noexcept;
void copy_3d(const Arguments&, Touched&) noexcept;
void copy_3d_peer(const Arguments&, Touched&) noexcept;
void copy_batch(const Arguments&, Touched&) noexcept;
void word32(const Arguments&, Touched&) noexcept;
void word64(const Arguments&, Touched&) noexcept;
void box(const CUDA_MEMCPY3D* copy, Touched& out) noexcept;

// ---- touch_kernels.cpp
void launch(const Arguments&, Touched&) noexcept;
void launch_cooperative(const Arguments&, Touched&) noexcept;
void launch_ex(const Arguments&, Touched&) noexcept;
// A kernel by a CUfunction, or by a CUkernel in its place.
void kernel(const void* function, void** parameters, void** extra, Touched& out) noexcept;

// ---- touch_nodes.cpp: nodes of graphs. The number is the argument that has the parameters.
void kernel_node1(const Arguments&, Touched&) noexcept;
void kernel_node2(const Arguments&, Touched&) noexcept;
void kernel_node4(const Arguments&, Touched&) noexcept;
void kernel_node1_v2(const Arguments&, Touched&) noexcept;
void kernel_node2_v2(const Arguments&, Touched&) noexcept;
void kernel_node4_v2(const Arguments&, Touched&) noexcept;
void copy_node1(const Arguments&, Touched&) noexcept;
void copy_node2(const Arguments&, Touched&) noexcept;
void copy_node4(const Arguments&, Touched&) noexcept;
void fill_node1(const Arguments&, Touched&) noexcept;
void fill_node2(const Arguments&, Touched&) noexcept;
void fill_node4(const Arguments&, Touched&) noexcept;
void node1(const Arguments&, Touched&) noexcept;
void node2(const Arguments&, Touched&) noexcept;
void node4(const Arguments&, Touched&) noexcept;
void node5(const Arguments&, Touched&) noexcept;

// ---- touch_views.cpp: what kernels reach by a descriptor. The number is the argument that has the
// address.
void tensor_map1(const Arguments&, Touched&) noexcept;
void tensor_map3(const Arguments&, Touched&) noexcept;
void texture(const Arguments&, Touched&) noexcept;

}  // namespace touches
}  // namespace kvcached::hooks
