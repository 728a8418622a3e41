#include "bench/engine/options.hpp"

#include <CLI/CLI.hpp>

namespace kvcached::engine {

std::optional<Options> parse_options(int argc, char** argv, int& exit_code) {
  Options o;
  CLI::App app{
      "A small paged-attention server loop on the CUDA driver API. It replays a request trace, "
      "fills its KV cache with a known pattern, and checks what it reads. JSON lines on standard "
      "output; exit code 0: every token checked was right, 1: wrong data, 2: bad flags, "
      "3: the run failed."};
  const auto size = CLI::AsSizeValue(false);
  app.add_option("--name", o.name, "shown in the output")->capture_default_str();
  app.add_option("--device", o.device, "CUDA device")->capture_default_str();
  app.add_option("--layers", o.shape.layers)->capture_default_str()->check(CLI::Range(1, 512));
  app.add_option("--kv-heads", o.shape.kv_heads)->capture_default_str()->check(CLI::Range(1, 512));
  app.add_option("--head-dim", o.shape.head_dim, "even; elements of 2 bytes")
      ->capture_default_str()
      ->check(CLI::Range(2, 1024));
  app.add_option("--block-tokens", o.shape.block_tokens)
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--kv-bytes", o.kv_bytes, "K and V of a static cache, such as 1GiB")
      ->transform(size)
      ->capture_default_str();
  app.add_option("--elastic-bytes", o.elastic_bytes,
                 "with kvcached: address space of K and V; without it, --kv-bytes holds")
      ->transform(size)
      ->capture_default_str();
  app.add_option("--trace", o.trace, "CSV: TIMESTAMP,ContextTokens,GeneratedTokens")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--step-seconds", o.trace_settings.step_seconds, "trace time in one step")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--max-tokens", o.trace_settings.max_tokens, "longest prompt with answer")
      ->capture_default_str()
      ->check(CLI::Range(2U, 1U << 20U));
  app.add_option("--max-batch", o.scheduler.max_batch)
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  app.add_option("--step-tokens", o.scheduler.step_tokens, "prompt tokens in one step")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--check-share", o.scheduler.check_share,
                 "check one n-th of each context at each step; 0: only whole, at the end")
      ->capture_default_str();
  app.add_option("--seed", o.scheduler.seed)->capture_default_str();
  app.add_option("--steps", o.steps, "at most; 0: until all requests are done")
      ->capture_default_str();
  app.add_option("--step-ms", o.step_ms, "start one step in so many milliseconds")
      ->capture_default_str();
  app.add_option("--report-every", o.report_every, "steps between two lines")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_flag("--lockstep", o.lockstep,
               "for each step, and once before memory is taken, wait for a byte on standard input; "
               "its end ends the run");
  try {
    app.parse(argc, argv);
    if (o.shape.head_dim % 2 != 0) {
      throw CLI::ValidationError("--head-dim", "must be even");
    }
  } catch (const CLI::ParseError& e) {
    exit_code = app.exit(e) == 0 ? 0 : 2;
    return std::nullopt;
  }
  o.scheduler.block_tokens = o.shape.block_tokens;
  return o;
}

}  // namespace kvcached::engine
