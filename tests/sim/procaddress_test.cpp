// Every function that NVIDIA's headers declare is found, by each of its generations.
#include <dlfcn.h>

#include <string>

#include "tests/sim/alone.hpp"

namespace sim_test {
namespace {

struct Generation {
  const char* name;
  int version;
  bool per_thread;
  const char* symbol;
};

constexpr Generation kAll[] = {
#define SIM_API(name, version, per_thread, symbol) {#name, version, (per_thread) != 0, #symbol},
#include "tests/sim/api.inc"
#undef SIM_API
};

struct Answer {
  CUresult result;
  void* address;
  CUdriverProcAddressQueryResult status;
};

Answer ask(const char* name, int version, bool per_thread) {
  Answer out{CUDA_SUCCESS, &out, CU_GET_PROC_ADDRESS_SUCCESS};
  out.result = cuGetProcAddress(
      name, &out.address, version,
      per_thread ? CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM : CU_GET_PROC_ADDRESS_DEFAULT,
      &out.status);
  return out;
}

class ProcAddress : public ::testing::Test {
 protected:
  ~ProcAddress() override { dlclose(library_); }
  [[nodiscard]] void* exported(const std::string& symbol) const {
    return dlsym(library_, symbol.c_str());
  }
  void* const library_ = dlopen("libcuda.so.1", RTLD_NOW);
};

TEST_F(ProcAddress, FindsEveryGeneration) {
  for (const Generation& wanted : kAll) {
    const Answer answer = ask(wanted.name, wanted.version, wanted.per_thread);
    EXPECT_EQ(answer.result, CUDA_SUCCESS) << wanted.symbol;
    EXPECT_EQ(answer.status, CU_GET_PROC_ADDRESS_SUCCESS) << wanted.symbol;
    EXPECT_NE(answer.address, nullptr) << wanted.symbol;
    EXPECT_EQ(answer.address, exported(wanted.symbol)) << wanted.symbol;
  }
}

TEST_F(ProcAddress, NewestWithinTheVersionWins) {
  EXPECT_EQ(ask("cuMemAlloc", 13000, false).address, exported("cuMemAlloc_v2"));
  EXPECT_EQ(ask("cuMemAlloc", 3010, false).address, exported("cuMemAlloc"));
  EXPECT_EQ(ask("cuCtxCreate", 12040, false).address, exported("cuCtxCreate_v3"));
  EXPECT_EQ(ask("cuGraphInstantiate", 12000, false).address,
            exported("cuGraphInstantiateWithFlags"));
  EXPECT_EQ(ask("cuMemcpyHtoD", 13000, true).address, exported("cuMemcpyHtoD_v2_ptds"));
  EXPECT_EQ(ask("cuMemcpyHtoD", 6050, true).address, exported("cuMemcpyHtoD_v2"));
  EXPECT_EQ(ask("cuMemCreate", 13000, true).address, exported("cuMemCreate"));
}

TEST_F(ProcAddress, FindsItself) {
  EXPECT_EQ(ask("cuGetProcAddress", 11030, false).address, exported("cuGetProcAddress"));
  EXPECT_EQ(ask("cuGetProcAddress", 12000, false).address, exported("cuGetProcAddress_v2"));
}

TEST_F(ProcAddress, SaysWhyThereIsNone) {
  for (const char* name : {"", "cuNothing", "cuMemAlloc_v2"}) {
    const Answer answer = ask(name, 13000, false);
    EXPECT_EQ(answer.result, CUDA_ERROR_NOT_FOUND);
    EXPECT_EQ(answer.address, nullptr);
    EXPECT_EQ(answer.status, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
  }
  const Answer early = ask("cuMemCreate", 10010, false);
  EXPECT_EQ(early.result, CUDA_ERROR_NOT_FOUND);
  EXPECT_EQ(early.status, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
  EXPECT_EQ(ask("cuMemCreate", 13010, false).result, CUDA_ERROR_INVALID_VALUE);
}

TEST_F(ProcAddress, WhatIsNotThereRefuses) {
  auto* const call = reinterpret_cast<CUresult (*)()>(exported("cuArrayCreate_v2"));
  EXPECT_EQ(call(), CUDA_ERROR_NOT_SUPPORTED);
}

}  // namespace
}  // namespace sim_test
