#include "tests/sim/settings.hpp"

#include <sys/vfs.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace sim {
namespace {

constexpr long kTmpfsMagic = 0x01021994;

std::string text(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

/// "512MiB", "4GiB", "4g", "1048576". Anything else is the default.
std::size_t bytes(const char* name, std::size_t otherwise) {
  const std::string value = text(name);
  char* end = nullptr;
  const std::size_t number = std::strtoull(value.c_str(), &end, 10);
  if (end == value.c_str()) return otherwise;
  switch (*end) {
    case '\0':
      return number;
    case 'K':
    case 'k':
      return number << 10U;
    case 'M':
    case 'm':
      return number << 20U;
    case 'G':
    case 'g':
      return number << 30U;
    default:
      return otherwise;
  }
}

/// Memory lives in shared memory where that is large enough; a disk would do, slowly. The choice
/// depends on nothing that changes, since all processes must make the same.
std::string directory(std::size_t memory) {
  if (std::string chosen = text("SIM_GPU_DIR"); !chosen.empty()) return chosen;
  const std::string name = "/sim-gpu-" + std::to_string(getuid());
  struct statfs info {};
  if (statfs("/dev/shm", &info) == 0 && static_cast<long>(info.f_type) == kTmpfsMagic &&
      access("/dev/shm", W_OK) == 0 &&
      static_cast<std::size_t>(info.f_blocks) * static_cast<std::size_t>(info.f_bsize) > memory) {
    return "/dev/shm" + name;
  }
  const std::string temporary = text("TMPDIR");
  return (temporary.empty() ? "/tmp" : temporary) + name;
}

Settings read() {
  Settings out{};
  out.devices = static_cast<int>(bytes("SIM_GPU_COUNT", 1));
  out.memory = bytes("SIM_GPU_MEMORY", std::size_t{4} << 30U);
  out.context_memory = bytes("SIM_GPU_CONTEXT_MEMORY", 0);
  out.reap_ns = static_cast<std::int64_t>(bytes("SIM_GPU_REAP_MS", 50)) * 1'000'000;
  out.directory = directory(out.memory);
  out.kernels = text("SIM_GPU_KERNELS");
  out.faults = text("SIM_GPU_FAULTS");
  const std::string latency = text("SIM_GPU_LATENCY");
  out.latency = !latency.empty() && latency != "0";
  return out;
}

}  // namespace

const Settings& settings() {
  static const Settings& all = *new Settings(read());
  return all;
}

}  // namespace sim
