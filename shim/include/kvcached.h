/* kvcached: elastic GPU memory for KV caches. Public C interface, version 1.
 *
 * Every function is weak: a program that uses this header links and runs without the library; test
 * `kvcached_version != NULL` (or KVCACHED_PRESENT()) before the first call. With the library
 * preloaded but switched off or without a usable pool, calls answer KVCACHED_OFF and memory is
 * plain.
 *
 * All functions may be called from any thread. None of them changes the current CUDA context,
 * exits, or throws. Sizes are bytes, addresses are device addresses as cuMemAlloc or cudaMalloc
 * returned them, durations are milliseconds. Structures start with their own size, so that later
 * versions can add members.
 */
#ifndef KVCACHED_H
#define KVCACHED_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
/* NOLINTBEGIN(modernize-use-using): it is C, too */

#define KVCACHED_API_VERSION 1

#if defined(KVCACHED_BUILDING)
#define KVCACHED_API __attribute__((visibility("default")))
#else
#define KVCACHED_API __attribute__((weak))
#endif

/* Results: zero or one of these. */
enum kvcached_result {
  KVCACHED_OK = 0,
  KVCACHED_INVALID = -1,     /* an argument is wrong; nothing was changed */
  KVCACHED_NOT_ELASTIC = -2, /* the address does not lie in an elastic buffer */
  KVCACHED_SHORT = -3,       /* the pool gave less than was asked for, perhaps nothing */
  KVCACHED_OFF = -4,         /* the library is switched off, or passes through */
  KVCACHED_LOST = -5,        /* the CUDA context or the buffer is gone or unusable */
  KVCACHED_FAILED = -6,      /* the driver or the system refused; the log says why */
  KVCACHED_BUSY = -7         /* not while a stream captures; try again after it */
};

#define KVCACHED_PRESENT() (kvcached_version != NULL)

/* The KVCACHED_API_VERSION that the library was built with. */
KVCACHED_API int kvcached_version(void);

/* ---- Tags: which allocations are elastic --------------------------------------------------- */

/* Between push and pop, device allocations of this thread become elastic: the range is reserved at
 * full size, physical memory comes with kvcached_grow or a cache. `tag` names the use ("kv") and is
 * copied. Pushes nest. An allocation under 2 MiB stays plain. */
KVCACHED_API int kvcached_tag_push(const char* tag);
KVCACHED_API int kvcached_tag_pop(void);

/* ---- Byte ranges ------------------------------------------------------------------------- */

/* In these calls `address` lies in an elastic allocation, and `offset` counts from it.
 *
 * Backs every byte of [offset, offset + bytes), waiting up to `wait_ms` for the pool. Whole extents
 * are backed, so more than asked may become resident. All or nothing: KVCACHED_SHORT leaves what
 * was resident before. New memory is zero. KVCACHED_INVALID when a cache has the allocation. */
KVCACHED_API int kvcached_grow(uint64_t address, size_t offset, size_t bytes, int64_t wait_ms);

/* Gives back the extents that lie wholly inside [offset, offset + bytes). Work already launched may
 * still use them: they go once all of it is done. Their contents are lost. */
KVCACHED_API int kvcached_shrink(uint64_t address, size_t offset, size_t bytes);

/* Resident bytes within [offset, offset + bytes). */
KVCACHED_API int kvcached_resident(uint64_t address, size_t offset, size_t bytes, size_t* resident);

/* ---- Models ------------------------------------------------------------------------------ */

typedef struct kvcached_model {
  size_t struct_size; /* sizeof(kvcached_model) */
  const char* name;   /* shown by `kvcached stat`; copied */
  uint32_t layers;
  uint32_t kv_heads;
  uint32_t head_dim;
  uint32_t bytes_per_element;
  uint32_t max_seq_len;  /* tokens */
  uint32_t block_tokens; /* tokens in one block */
  /* What a request of max_seq_len tokens takes in all layers, for each of its tokens: of a model
   * whose layers differ, have no V, or do not keep every token. 0, or a struct_size that ends
   * before this: K and V of layers x kv_heads x head_dim x bytes_per_element. */
  uint64_t bytes_per_token;
} kvcached_model;

typedef struct kvcached_model_info {
  size_t struct_size;
  uint64_t bytes_per_token;   /* as the model says it, or K and V of all layers */
  uint64_t capacity_tokens;   /* what this tenant may hold at most in the pool */
  uint64_t guaranteed_tokens; /* what its minimum covers */
} kvcached_model_info;

/* Registers the shape of this process's model on the current device. `info` may be NULL. A second
 * call replaces the first. Waits for a call of kvcached_model_on_max_seq_len()'s function that is
 * under way in another thread. */
KVCACHED_API int kvcached_model_register(const kvcached_model* model, kvcached_model_info* info);

/* Degrading: where this tenant's maximum, the pool, or what others are guaranteed leave less than
 * one request of `max_seq_len` tokens takes, longer requests than those that fit would wait for
 * ever.
 *
 * Tokens of the longest request of the registered model, on the current device, that fits now:
 * whole blocks, at most its max_seq_len, and 0 where not one block fits or no model is registered.
 * What others merely use does not count: it comes back. Asks the driver for the current device and
 * looks at every cache, so it is not for every step; it waits for other threads of this process
 * that use the pool's account or a cache, for some 50 ms where a process that holds the account's
 * lock is stopped. Without a pool that can be read, the last number. */
KVCACHED_API uint32_t kvcached_model_max_seq_len(void);

/* Calls `function(max_seq_len, user)` on the library's thread each time that number changes, down
 * or up, within about a second; first if it is not the model's full length by then. The caller
 * refuses new requests that are longer; those that run may finish. The function may make the calls
 * of this section, this one too; on the library's thread they are about device 0. It must not wait,
 * and neither create nor destroy caches. NULL: no more calls; when it returns, none is under way
 * but the one that it was made from. Replaces the function before. */
typedef void (*kvcached_max_seq_len_function)(uint32_t max_seq_len, void* user);
KVCACHED_API int kvcached_model_on_max_seq_len(kvcached_max_seq_len_function function, void* user);

/* ---- Caches: segments that share one space of blocks ------------------------------------- */

typedef struct kvcached_cache kvcached_cache;

/* Where one tensor's blocks lie: block b occupies [base + b * stride, + block_bytes). */
typedef struct kvcached_segment {
  uint64_t base; /* device address inside an elastic allocation */
  uint64_t stride;
  uint64_t block_bytes;
} kvcached_segment;

typedef struct kvcached_range {
  uint64_t first; /* block number */
  uint64_t count;
} kvcached_range;

typedef struct kvcached_geometry {
  size_t struct_size;
  const kvcached_segment* segments;
  size_t segment_count;
  uint64_t blocks;              /* block numbers are 0 .. blocks - 1 in every segment */
  const kvcached_range* pinned; /* backed at once and never released; may be NULL */
  size_t pinned_count;
  uint64_t stripe_bytes; /* largest extent per segment; 0: chosen from the pool's size */
} kvcached_geometry;

typedef struct kvcached_cache_info {
  size_t struct_size;
  uint64_t blocks;       /* all */
  uint64_t live;         /* handed out by acquire, pinned ones included */
  uint64_t ready;        /* backed and free: acquire gives them without waiting */
  uint64_t stripes;      /* all */
  uint64_t backed_bytes; /* physical memory held, warm stripes included */
  uint64_t warm_bytes;   /* part of it: backed, with no live block */
  uint64_t short_grants; /* times the pool refused */
  uint64_t lost_blocks;  /* blocks that can never be used again after a driver failure */
} kvcached_cache_info;

/* Claims the elastic allocations in which the segments lie; contents written so far are dropped and
 * unbacked addresses read undefined values. Pinned blocks are backed before it returns: it waits
 * for memory for them, 30 s at most (KVCACHED_SHORT). The caller keeps the allocations alive until
 * kvcached_cache_destroy; freeing one destroys the cache. */
KVCACHED_API int kvcached_cache_create(const kvcached_geometry* geometry, kvcached_cache** cache);
KVCACHED_API int kvcached_cache_destroy(kvcached_cache* cache);

enum kvcached_acquire_flags {
  KVCACHED_WHOLE_STRIPES = 1, /* whole stripes, for callers that keep a free list of their own: at
                                least `blocks` blocks where the pool has them */
  KVCACHED_UNTIL_REFUSED = 2  /* wait only for memory that the pool grants: a refusal ends it */
};

/* Makes blocks allocatable: takes `blocks` free blocks, from the fullest stripes first, and returns
 * them as at most `*range_count` ranges; `*range_count` becomes the number used. What is not backed
 * yet is mapped; the call waits for that, and for the pool, up to `wait_ms` (0: take what is ready,
 * but ask for the rest, so that a later call finds it). KVCACHED_SHORT when fewer blocks came than
 * were asked for: the ranges that did come are the caller's all the same. The others in the pool give
 * for who asks, and for a second after: for as long as a request waits, ask again, if not for taking
 * anything then without room for ranges. */
KVCACHED_API int kvcached_cache_acquire(kvcached_cache* cache, uint64_t blocks, unsigned flags,
                                        int64_t wait_ms, kvcached_range* ranges,
                                        size_t* range_count);

/* Takes exactly these blocks, all of them or none: for programs with a cache on each of several
 * GPUs that must hold the same blocks. What is not backed yet is mapped while the call waits, up to
 * `wait_ms` (0: take only what is ready); it waits for memory that the pool grants, not for a pool
 * that refuses. KVCACHED_SHORT: none was taken; KVCACHED_INVALID: neither, because a block is live,
 * pinned, outside the cache or named twice. Stripes are backed whole: kvcached_cache_stripes tells
 * them. After a refusal, what kvcached_cache_expect asked for is forgotten. */
KVCACHED_API int kvcached_cache_acquire_ranges(kvcached_cache* cache, const kvcached_range* ranges,
                                               size_t range_count, int64_t wait_ms);

/* Returns blocks. Work already launched may still write them: memory leaves only after a fence. A
 * range that is not wholly live is KVCACHED_INVALID and changes nothing. */
KVCACHED_API int kvcached_cache_release(kvcached_cache* cache, const kvcached_range* ranges,
                                        size_t range_count);

/* Says how many more blocks the caller expects to acquire soon; that many are kept ready, ahead of
 * demand and within what the pool has free: nobody gives for what is only expected. Never waits,
 * makes no driver call. */
KVCACHED_API int kvcached_cache_expect(kvcached_cache* cache, uint64_t blocks);

/* For callers that keep a free list of their own: of the blocks that they have acquired, so many
 * are in use. What `kvcached stat` shows as used and fragmented follows it; when none is, what is
 * released after a quiet time goes back to the pool sooner; and most of what is not, nor expected,
 * is asked for (kvcached_cache_pressure) where others in the pool wait for memory. Never waits,
 * makes no driver call. */
KVCACHED_API int kvcached_cache_in_use(kvcached_cache* cache, uint64_t blocks);

/* The caller has dropped what so many blocks held for later use, such as cached prefixes, since the
 * last call. Counted for `kvcached stat` only. Never waits, makes no driver call. */
KVCACHED_API int kvcached_cache_evicted(kvcached_cache* cache, uint64_t blocks);

/* How many acquired blocks the caller should release soon because others in the pool are entitled
 * to their memory: first those it does not use, then what it can do without. 0: nobody waits. Never
 * waits, makes no driver call. */
KVCACHED_API uint64_t kvcached_cache_pressure(kvcached_cache* cache);

/* Where kvcached_cache_pressure() stands, to be read (atomically) by a caller to whom a call is
 * dear. The library's until the cache is destroyed; NULL: there is no such cache. */
KVCACHED_API const uint64_t* kvcached_cache_pressure_word(kvcached_cache* cache);

/* Calls `function(cache, blocks, user)` on the library's thread each time kvcached_cache_pressure()
 * rises. It may release blocks, and make this call; it must not wait, and neither create nor
 * destroy caches. NULL: no more calls; when it returns, none is under way but the one that it was
 * made from. Replaces the function before. */
typedef void (*kvcached_reclaim_function)(kvcached_cache* cache, uint64_t blocks, void* user);
KVCACHED_API int kvcached_cache_on_reclaim(kvcached_cache* cache,
                                           kvcached_reclaim_function function, void* user);

/* Waits until kvcached_cache_pressure() is not 0, for a thread that lets an idle program give way.
 * KVCACHED_SHORT: it stayed 0 for wait_ms; KVCACHED_LOST or KVCACHED_INVALID: the cache is gone. */
KVCACHED_API int kvcached_cache_wait_pressure(kvcached_cache* cache, int64_t wait_ms);

/* Blocks that acquire would give without waiting. Never waits, makes no driver call. */
KVCACHED_API uint64_t kvcached_cache_available(kvcached_cache* cache);

KVCACHED_API int kvcached_cache_describe(kvcached_cache* cache, kvcached_cache_info* info);

/* The block ranges of all stripes in order, at most `*count` of them; `*count` becomes the number
 * of stripes. With `ranges` NULL only counts. They stay the same for the cache's life. */
KVCACHED_API int kvcached_cache_stripes(kvcached_cache* cache, kvcached_range* ranges,
                                        size_t* count);

/* ---- Adapters ---------------------------------------------------------------------------- */

/* Shown by `kvcached stat`: which adapter drives this process and what state it is in
 * ("vllm", "elastic: 16 segments"). Both are copied and cut to 31 and 95 characters. */
KVCACHED_API int kvcached_adapter_report(const char* adapter, const char* state);

/* Backs the whole elastic allocation in which `address` lies, for good: it behaves as plain memory
 * from then on. For adapters that find an engine they do not know. Waits for the work that its
 * context has launched, and up to `wait_ms` for the pool. */
KVCACHED_API int kvcached_back_whole(uint64_t address, int64_t wait_ms);

/* NOLINTEND(modernize-use-using) */
#ifdef __cplusplus
}
#endif
#endif
