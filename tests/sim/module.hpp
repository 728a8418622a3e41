#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/cuda_api.hpp"
#include "tests/sim/kernel.h"

namespace sim {

/// A kernel's argument, as the PTX text declares it.
struct Parameter {
  std::size_t offset;
  std::size_t bytes;
};

struct Module;

/// One .entry, with the host function of its name.
struct Kernel {
  std::string name;
  std::vector<Parameter> parameters;
  sim_kernel function;  // nullptr: no kernel library has it
  Module* module;
};

/// A loaded PTX text, as a module or as a library. Its kernels have two handles each: one as
/// CUfunction, one as CUkernel.
struct Module {
  std::map<std::string, Kernel> kernels;
  bool library;
};

CUresult load_module(const void* image, bool library, std::shared_ptr<Module>& out);

/// Handles. Unloaded ones are unknown.
void publish_module(const std::shared_ptr<Module>& module);
std::shared_ptr<Module> find_module(const void* handle, bool library);
bool withdraw_module(const void* handle, bool library);

/// A kernel by either kind of handle, nullptr for neither; kept alive by its module.
struct KernelHandle {
  std::shared_ptr<Module> module;
  Kernel* kernel = nullptr;
};
KernelHandle find_function(CUfunction handle);
KernelHandle find_kernel(CUkernel handle);

CUfunction function_of(Kernel& kernel);
CUkernel kernel_of(Kernel& kernel);

/// The entries of a PTX text; false if it is none.
bool parse_ptx(const std::string& text, std::map<std::string, Kernel>& out);

}  // namespace sim
