/* What a kernel library for the simulated GPU implements.
 *
 * A kernel of the PTX module is a function of the same name in one of the shared libraries that
 * SIM_GPU_KERNELS lists. It is called once per launch, on a thread of the stream, and does the work
 * of all blocks and threads. params[i] points to a copy of the i-th argument. A touch of an
 * unmapped address ends it as it would on a GPU: without unwinding, so it should own nothing.
 */
#ifndef TESTS_SIM_KERNEL_H
#define TESTS_SIM_KERNEL_H

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sim_launch { /* NOLINT(modernize-use-using): also C */
  unsigned grid_x, grid_y, grid_z;
  unsigned block_x, block_y, block_z;
  unsigned shared_bytes;
} sim_launch;

typedef void (*sim_kernel)(const sim_launch* launch, void** params); /* NOLINT */

#ifdef __cplusplus
}
#endif

#endif
