"""Programs written for this comparison: CUDA in cuda/, Python in python/."""

from program import Build, Program

ROWS = []


def cuda(name, *, flags=("-lcuda",), variant="", **more):
    full = f"{name}-{variant}" if variant else name
    ROWS.append(Program(name=full, group="CUDA", command=["./" + full], folder="tests/gpu/programs/cuda",
                        build=Build([f"{name}.cu"], list(flags)), **more))


def python(group, name, *arguments, variant="", **more):
    more = {"seconds": 10, "limit": 100, **more}
    # Many run at once: each keeps to a core or two.
    more["env"] = {"OMP_NUM_THREADS": "2", "TORCHINDUCTOR_COMPILE_THREADS": "1", **more.get("env", {})}
    ROWS.append(Program(name=f"{name}-{variant}" if variant else name, group=group,
                        command=["{python}", f"{{here}}/python/{name}.py", *arguments], **more))


def preload(name):
    return f"build/gpu-programs/preloads/lib{name}.so"


cuda("identity", elastic=10, why="every question about a pointer, and every way to free it")
cuda("graphs", elastic=10, why="capture in global, thread-local and relaxed mode")
cuda("graphs", flags=("-lcuda", "-cudart", "shared", "--default-stream", "per-thread"),
     variant="shared-per-thread", elastic=10)
cuda("launches", elastic=13, why="cooperative, cluster and dependent launches; pointers in tables")
cuda("tensormap", elastic=2, why="Hopper's tensor maps hide the address")
cuda("copies", elastic=7)
cuda("pools", elastic=1)
cuda("mappings", elastic=1, why="a user of the virtual memory calls")
cuda("threads", elastic=50, seconds=8)
cuda("threads", flags=("-lcuda", "--default-stream", "per-thread"), variant="per-thread", elastic=50, seconds=8)
cuda("processes", elastic=6, why="fork before and after CUDA, spawn, a child that crashes", seconds=6)
cuda("textures", elastic=2)
cuda("contexts", elastic=10)
cuda("doors", elastic=5)
cuda("memops", elastic=2)
cuda("sync_memops", elastic=4, why="copies and fills that wait, as the driver refuses for mapped memory")
cuda("dma_buf", elastic=2)
cuda("exits", elastic=4, code=7)
cuda("errors", elastic=2, code=5)
cuda("memory", elastic=10, alone=True, match="size>=256MiB")

TORCH = "PyTorch"
python(TORCH, "torch_training", elastic=1)
python(TORCH, "torch_training", variant="expandable", elastic=0,
       env={"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, why="torch maps its memory itself")
python(TORCH, "torch_training", variant="cuda-malloc-async", elastic=0,
       env={"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"})
python(TORCH, "torch_training", variant="no-caching", elastic=1, env={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
       why="every tensor is a cudaMalloc of its own")
python(TORCH, "torch_allocator", elastic=5)
python(TORCH, "torch_graphs", elastic=2)
python(TORCH, "torch_compile", elastic=1, seconds=40, limit=170)
python(TORCH, "torch_streams", elastic=4)
python(TORCH, "torch_threads", elastic=4)
python(TORCH, "torch_processes", elastic=0, match="size>=64MiB", seconds=25, limit=120,
       why="shares tensors by CUDA IPC: its rule leaves those alone")
python(TORCH, "torch_attention", elastic=1)
python(TORCH, "torch_loader", elastic=1, seconds=15)
python(TORCH, "torch_libraries", elastic=2, why="cuBLAS, cuFFT, cuSOLVER, cuDNN, cuSPARSE")
python(TORCH, "torch_memory", elastic=2, alone=True, match="size>=64MiB")
python("preloads", "torch_streams", variant="jemalloc-before", preload_before=preload("jemalloc"), elastic=4,
       needs=(preload("jemalloc"),))
python("preloads", "torch_streams", variant="tcmalloc-after", preload_after=preload("tcmalloc"), elastic=4,
       needs=(preload("tcmalloc"),))
for other in ("jemalloc", "tcmalloc", "mimalloc"):
    for where in ("before", "after"):
        ROWS.append(Program(name=f"threads-{other}-{where}", group="preloads", command=["./threads"], binary="threads",
                            elastic=50, needs=(preload(other),), **{f"preload_{where}": preload(other)}))
python("transformers", "llama_generate", elastic=1, seconds=20, limit=120)
python("transformers", "llama_generate", "static", variant="static", elastic=1, seconds=25, limit=150)
python("transformers", "llama_continuous", elastic=1, seconds=25, limit=150)
python("Triton", "triton_tutorials", elastic=1, seconds=20, limit=120)
python("CuPy", "cupy_arrays", elastic=1, seconds=15)
python("CuPy", "cupy_allocators", elastic=1, seconds=15)
for preallocate in ("false", "true"):
    python("JAX", "jax_numbers", variant=f"preallocate-{preallocate}", elastic=1, seconds=25, limit=150,
           env={"XLA_PYTHON_CLIENT_PREALLOCATE": preallocate, "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.04"})
python("JAX", "jax_numbers", variant="platform", elastic=1, seconds=25, limit=150,
       env={"XLA_PYTHON_CLIENT_ALLOCATOR": "platform"})
python("other Python", "numba_kernels", elastic=1, seconds=15)
python("Numba", "bindings_driver", elastic=1, seconds=5, why="cuda-bindings finds the driver its own way")
