// `make demo`: three engines on one GPU replay production traces twice, each with a third of the
// memory, then all in one elastic pool.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "bench/demo/child.hpp"
#include "bench/demo/gpu.hpp"
#include "bench/demo/replay.hpp"
#include "bench/demo/summary.hpp"
#include "bench/demo/svg.hpp"

namespace {

using namespace kvcached::demo;
namespace fs = std::filesystem;

constexpr std::uint64_t kMiB = 1ULL << 20U;
// The pool holds as many tokens on every GPU, so that the traces fill it alike everywhere; what
// differs is the size of a token.
constexpr std::uint64_t kPoolTokens = 131072;

struct Flags {
  std::string build = "build";
  std::string traces = "bench/demo/traces";
  std::string gpu = "auto";
  std::uint64_t pool = 0;
  std::uint32_t step_ms = 25;
};

struct Shape {
  std::uint64_t layers;
  std::uint64_t kv_heads;
  std::uint64_t head_dim;

  [[nodiscard]] std::uint64_t pool_bytes() const {
    return kPoolTokens * layers * 2 * kv_heads * head_dim * 2;
  }
};

/// A folder that goes with the object.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const fs::path& parent) {
    std::string name = (parent / "kvcached-demo-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) {
      throw std::runtime_error("cannot make a folder in " + parent.string());
    }
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// A layer of the usual 8 heads of 128 makes 512 MiB of pool.
Shape shape_for(std::uint64_t pool, std::uint64_t most_layers) {
  Shape shape{1, 8, 128};
  shape.layers = std::clamp<std::uint64_t>(pool / shape.pool_bytes(), 1, most_layers);
  return shape;
}

void set(const char* name, const std::string& value) { setenv(name, value.c_str(), 1); }

/// Memory of killed and ended engines comes back after a while.
void wait_for_memory(const Gpu& gpu, std::uint64_t used) {
  for (int i = 0; i < 100 && gpu.used_bytes() > used; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

std::vector<std::string> engine_command(const Flags& flags, const Shape& shape) {
  const std::uint64_t pool = shape.pool_bytes();
  return {fs::absolute(flags.build + "/engine"),
          "--lockstep",
          "--layers",
          std::to_string(shape.layers),
          "--kv-heads",
          std::to_string(shape.kv_heads),
          "--head-dim",
          std::to_string(shape.head_dim),
          "--kv-bytes",
          std::to_string(pool / 3),
          "--elastic-bytes",
          std::to_string(pool)};
}

int demonstrate(const Flags& flags) {
  std::unique_ptr<Gpu> gpu;
  if (flags.gpu != "simulated") {
    gpu = Gpu::open("libcuda.so.1");
  }
  if (!gpu && flags.gpu == "real") {
    throw std::runtime_error("no NVIDIA GPU here");
  }
  const TemporaryFolder folder(fs::temp_directory_path());
  std::unique_ptr<TemporaryFolder> memory;
  Shape shape{};
  if (gpu) {
    shape = shape_for(flags.pool != 0 ? flags.pool : gpu->free_bytes() / 2, 32);
  } else {
    shape = shape_for(flags.pool != 0 ? flags.pool : available_main_memory() / 4, 2);
    // Room beside the pool for the engines' small buffers and for scratch.
    const std::uint64_t total = shape.pool_bytes() + shape.pool_bytes() / 8 + 128 * kMiB;
    const bool shared = free_space("/dev/shm") >= total;
    memory = std::make_unique<TemporaryFolder>(shared ? "/dev/shm" : fs::temp_directory_path());
    const std::string library = fs::absolute(flags.build + "/sim");
    set("SIM_GPU_MEMORY", std::to_string(total));
    set("SIM_GPU_DIR", memory->path());
    set("SIM_GPU_KERNELS", library + "/libengine_kernels.so");
    set("LD_LIBRARY_PATH", library);
    gpu = Gpu::open(library + "/libcuda.so.1");
    if (!gpu) {
      throw std::runtime_error("the simulated GPU does not start");
    }
  }
  const std::uint64_t pool = shape.pool_bytes();
  std::printf(
      "%s: %s. Three engines, %llu layers of %llu heads; %llu MiB for K and V, %llu tokens.\n",
      memory ? "Simulated GPU" : "GPU", gpu->name().c_str(),
      static_cast<unsigned long long>(shape.layers),
      static_cast<unsigned long long>(shape.kv_heads), static_cast<unsigned long long>(pool / kMiB),
      static_cast<unsigned long long>(kPoolTokens));

  const fs::path out = fs::path(flags.build) / "demo";
  fs::create_directories(out);
  ReplaySettings settings{"static",
                          engine_command(flags, shape),
                          current_environment(),
                          {{"conversation", flags.traces + "/conversation.csv"},
                           {"code-a", flags.traces + "/code-a.csv"},
                           {"code-b", flags.traces + "/code-b.csv"}},
                          flags.step_ms,
                          out.string()};
  for (auto i = settings.environment.begin(); i != settings.environment.end();) {
    i = i->first.starts_with("KVCACHED_") ? settings.environment.erase(i) : std::next(i);
  }
  const std::uint64_t used = gpu->used_bytes();
  std::puts("First run: each engine has a third of the memory.");
  const ReplayResult fixed = replay(settings, *gpu);
  wait_for_memory(*gpu, used);

  std::puts("Second run: all engines share it; LD_PRELOAD=libkvcached.so.");
  settings.mode = "elastic";
  std::string& preload = settings.environment["LD_PRELOAD"];
  preload = fs::absolute(flags.build + "/libkvcached.so").string() +
            (preload.empty() ? "" : ":" + preload);
  settings.environment["KVCACHED_POOL"] = std::to_string(pool / kMiB) + "MiB";
  settings.environment["KVCACHED_DIR"] = folder.path();
  const ReplayResult elastic = replay(settings, *gpu);

  const fs::path picture = out / "memory.svg";
  std::ofstream(picture) << memory_svg(
      {{"static: a third for each", &fixed}, {"elastic: one pool for all", &elastic}},
      settings.tenants, pool, gpu->name());
  std::printf("\n%s\n", table(fixed, elastic, settings.tenants).c_str());
  std::printf(
      "GPU memory: as the driver reports it (cuMemGetInfo) after each step, beyond what was in\n"
      "use before the engines took memory for K and V. A wait is the number of engine steps from\n"
      "a request's arrival to its first token. Memory over time: %s\n",
      picture.c_str());
  const std::vector<std::string> failed = failures(summarise(fixed), summarise(elastic));
  for (const std::string& line : failed) {
    std::printf("FAILED: %s\n", line.c_str());
  }
  return failed.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  CLI::App app{"Three engines share one GPU: static thirds against one elastic pool."};
  app.add_option("build", flags.build, "where the products lie")->capture_default_str();
  app.add_option("--traces", flags.traces, "folder of the traces")->capture_default_str();
  app.add_option("--gpu", flags.gpu, "which one")
      ->check(CLI::IsMember({"auto", "real", "simulated"}))
      ->capture_default_str();
  app.add_option(
         "--pool", flags.pool,
         "memory of all engines together, in steps of 512MiB; 0: half of a real GPU's free memory, "
         "at most 16GiB; a quarter of the main memory for a simulated one, at most 1GiB")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  app.add_option("--step-ms", flags.step_ms, "no step starts sooner after the one before")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  catch_signals();
  try {
    return demonstrate(flags);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "demo: %s\n", e.what());
    return 1;
  }
}
