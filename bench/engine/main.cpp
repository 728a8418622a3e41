#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "bench/engine/options.hpp"
#include "bench/engine/server.hpp"

int main(int argc, char** argv) {
  int exit_code = 0;
  const std::optional<kvcached::engine::Options> options =
      kvcached::engine::parse_options(argc, argv, exit_code);
  if (!options) {
    return exit_code;
  }
  try {
    kvcached::engine::Server server(*options);
    return server.run() ? 0 : 1;
  } catch (const std::exception& e) {
    const nlohmann::ordered_json line{
        {"event", "error"}, {"name", options->name}, {"what", e.what()}};
    std::cout << line.dump() << std::endl;
    return 3;
  }
}
