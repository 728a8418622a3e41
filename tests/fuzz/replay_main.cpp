// Runs a fuzzer's function without a fuzzer: over a folder of saved inputs, then over made-up ones
// that are the same in every run. Usage: NAME_fuzz COUNT [FOLDER]
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
  const unsigned long count = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 0;
  std::size_t saved = 0;
  if (argc > 2 && std::filesystem::is_directory(argv[2])) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[2])) {
      if (!entry.is_regular_file()) continue;
      std::ifstream stream(entry.path(), std::ios::binary);
      const std::vector<char> input{std::istreambuf_iterator<char>(stream), {}};
      std::vector<std::uint8_t> bytes(input.begin(), input.end());
      LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
      ++saved;
    }
  }
  std::mt19937 random(1);
  std::vector<std::uint8_t> bytes;
  for (unsigned long i = 0; i < count; ++i) {
    // Mostly short inputs; small byte values are likelier, because they tend to be opcodes.
    bytes.resize(random() % (i % 16 == 0 ? 4096 : 256));
    const unsigned mask = random() % 2 == 0 ? 0xff : 0x0f;
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random() & mask);
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%zu saved inputs, %lu made up\n", saved, count);
  return saved + count > 0 ? 0 : 1;
}
