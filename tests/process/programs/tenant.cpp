// link: -lcuda
// A tenant that does as it is told: one command a line on standard input, one answer a line.
//
//   acquire BLOCKS WAIT_MS   takes blocks: "acquired BLOCKS"
//   second BLOCKS WAIT_MS    takes blocks of a second cache, made at the first: "acquired BLOCKS"
//   release                  gives all of them back: "released"
//   expect BLOCKS            wants so many kept ready: "expecting"
//   ready                    "ready BLOCKS" that could be had at once
//   pressure                 "pressure BLOCKS"
//   obey                     from now on gives all back as soon as others want some: "obeying"
//   in_use BLOCKS            of those acquired, so many are in use: "told"
//   evicted BLOCKS           has dropped what so many blocks held: "told"
//   model TOKENS             registers a model of 16 tokens a block, requests up to TOKENS: "told"
//   fits                     "fits TOKENS": the longest request, as it was last told
//   plain MIB [pitch|create] holds plain memory, as a rule by cuMemAlloc: "plain"
//   retain                   retains and releases the context, which lives on: "retained"
//   free                     frees it: "free"
#include <cuda.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "shim/include/kvcached.hpp"

namespace {

constexpr std::uint64_t kBlock = 64 << 10;
constexpr std::uint64_t kBlocks = 16384;  // 1 GiB in each of two tensors
constexpr std::uint64_t kTensors = 2;

CUdeviceptr allocate() {
  CUdeviceptr at = 0;
  kvcached_tag_push("kv");
  const CUresult result = cuMemAlloc(&at, kBlock * kBlocks);
  kvcached_tag_pop();
  return result == CUDA_SUCCESS ? at : 0;
}

kvcached_cache* make_cache(std::vector<kvcached_segment>& segments) {
  for (std::uint64_t i = 0; i < kTensors; ++i) segments.push_back({allocate(), kBlock, kBlock});
  kvcached_geometry geometry{};
  geometry.struct_size = sizeof geometry;
  geometry.segments = segments.data() + segments.size() - kTensors;
  geometry.segment_count = kTensors;
  geometry.blocks = kBlocks;
  kvcached_cache* cache = nullptr;
  return kvcached_cache_create(&geometry, &cache) == KVCACHED_OK ? cache : nullptr;
}

// Blocks that it got; their ranges are added to `held`.
std::uint64_t acquire(kvcached_cache* cache, std::uint64_t blocks, std::int64_t wait,
                      std::vector<kvcached_range>& held) {
  std::vector<kvcached_range> ranges(256);
  std::size_t count = ranges.size();
  kvcached_cache_acquire(cache, blocks, 0, wait, ranges.data(), &count);
  held.insert(held.end(), ranges.begin(), ranges.begin() + static_cast<std::ptrdiff_t>(count));
  std::uint64_t got = 0;
  for (std::size_t i = 0; i < count; ++i) got += ranges[i].count;
  return got;
}

CUresult take_plain(const std::string& way, std::uint64_t mib, CUdeviceptr& out) {
  std::size_t pitch = 0;
  if (way == "pitch") return cuMemAllocPitch(&out, &pitch, 1 << 20, mib, 4);
  if (way != "create") return cuMemAlloc(&out, mib << 20);
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  CUmemGenericAllocationHandle handle = 0;
  return cuMemCreate(&handle, mib << 20, &properties, 0);
}

struct Held {
  std::mutex mutex;
  std::vector<kvcached_range> ranges;

  void give_back(kvcached_cache* cache) {
    const std::lock_guard lock(mutex);
    kvcached_cache_release(cache, ranges.data(), ranges.size());
    ranges.clear();
  }
};

}  // namespace

int main() {
  CUcontext context = nullptr;
  if (cuInit(0) != CUDA_SUCCESS || cuDevicePrimaryCtxRetain(&context, 0) != CUDA_SUCCESS ||
      cuCtxSetCurrent(context) != CUDA_SUCCESS) {
    return 2;
  }
  std::vector<kvcached_segment> segments;
  kvcached_cache* const cache = make_cache(segments);
  if (cache == nullptr) return 3;
  kvcached_cache* second = nullptr;
  std::vector<kvcached_range> held_by_second;

  Held held;
  CUdeviceptr plain = 0;
  std::atomic<std::uint32_t> fits{0};
  std::printf("here\n");
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string verb;
    std::uint64_t blocks = 0;
    std::int64_t wait = 0;
    words >> verb >> blocks >> wait;
    if (verb == "acquire") {
      std::vector<kvcached_range> ranges;
      const std::uint64_t got = acquire(cache, blocks, wait, ranges);
      const std::lock_guard lock(held.mutex);
      held.ranges.insert(held.ranges.end(), ranges.begin(), ranges.end());
      std::printf("acquired %llu\n", static_cast<unsigned long long>(got));
    } else if (verb == "second") {
      if (second == nullptr) second = make_cache(segments);
      const std::uint64_t got = acquire(second, blocks, wait, held_by_second);
      std::printf("acquired %llu\n", static_cast<unsigned long long>(got));
    } else if (verb == "release") {
      held.give_back(cache);
      std::printf("released\n");
    } else if (verb == "expect") {
      kvcached_cache_expect(cache, blocks);
      std::printf("expecting\n");
    } else if (verb == "ready") {
      std::printf("ready %llu\n", static_cast<unsigned long long>(kvcached_cache_available(cache)));
    } else if (verb == "obey") {
      const auto obey = [](kvcached_cache* of, std::uint64_t, void* user) {
        static_cast<Held*>(user)->give_back(of);
      };
      kvcached_cache_on_reclaim(cache, obey, &held);
      std::printf("obeying\n");
    } else if (verb == "pressure") {
      std::printf("pressure %llu\n",
                  static_cast<unsigned long long>(kvcached_cache_pressure(cache)));
    } else if (verb == "in_use") {
      kvcached_cache_in_use(cache, blocks);
      std::printf("told\n");
    } else if (verb == "evicted") {
      kvcached_cache_evicted(cache, blocks);
      std::printf("told\n");
    } else if (verb == "model") {
      const kvcached_model model{sizeof model,
                                 "test",
                                 1,
                                 1,
                                 kBlock * kTensors / 16 / 4,
                                 2,
                                 static_cast<std::uint32_t>(blocks),
                                 16,
                                 0};
      fits = model.max_seq_len;
      const auto tell = [](std::uint32_t tokens, void* user) {
        *static_cast<std::atomic<std::uint32_t>*>(user) = tokens;
      };
      const bool told = kvcached_model_register(&model, nullptr) == KVCACHED_OK &&
                        kvcached_model_on_max_seq_len(tell, &fits) == KVCACHED_OK;
      std::printf(told ? "told\n" : "refused\n");
    } else if (verb == "fits") {
      std::printf("fits %u\n", fits.load());
    } else if (verb == "plain") {
      const std::string way = line.substr(line.find_last_of(' ') + 1);
      std::printf(take_plain(way, blocks, plain) == CUDA_SUCCESS ? "plain\n" : "refused\n");
    } else if (verb == "retain") {
      CUcontext again = nullptr;
      const bool done = cuDevicePrimaryCtxRetain(&again, 0) == CUDA_SUCCESS &&
                        cuDevicePrimaryCtxRelease(0) == CUDA_SUCCESS;
      std::printf(done ? "retained\n" : "refused\n");
    } else if (verb == "free") {
      std::printf(cuMemFree(plain) == CUDA_SUCCESS ? "free\n" : "refused\n");
    }
    std::fflush(stdout);
  }
  kvcached_cache_destroy(cache);
  if (second != nullptr) kvcached_cache_destroy(second);
  for (const kvcached_segment& segment : segments) cuMemFree(segment.base);
  // A leak checker stops all threads of a process that ends, and the simulated driver's do not heed
  // it.
  std::_Exit(0);
}
