"""NVIDIA's samples that are compared, release 13.0. Run by itself it prints their folders."""

from program import Build, Program

# The samples print what they measured on lines that say so; the figures there are masked.
TIMES = (
    r"(?i)time|throughput|elapsed|perform|bandwidth|speed|clock|flop|[kmgt]i?b/s|elems/s|\b(ms|us|sec)\b|msec|usec|took"
    r"|cpu executed",
    r"[-+]?\d[\d.]*(e[-+]?\d+)?", "#")
# Names of shared memory carry the process number.
PIDS = (r"lshmName", r"\d+", "#")

FIVE_MILLION = ("= 50000;", "= 5000000;")

ROWS = []


def sample(path, *sources, args=(), flags=(), kernel=None, kernel_to="", copy=(), edits=None, masks=(),
           variant="", **more):
    name = path.rsplit("/", 1)[1]
    build = Build(list(sources or [f"{name}.cu"]), list(flags), kernel, kernel_to, list(copy), edits or {})
    full = name + (f"-{variant}" if variant else "")
    ROWS.append(Program(name=full, group="NVIDIA samples", command=["./" + full, *args], build=build,
                        folder=f"build/cuda-samples/Samples/{path}", masks=(TIMES, PIDS, *masks), **more))


def driver_sample(path, source, kernel, to, **more):
    sample(path, source, flags=["-lcuda", *more.pop("flags", ())], kernel=kernel, kernel_to=to, **more)


INTRO, CONCEPTS, FEATURES, LIBRARIES, SPEED = (
    "0_Introduction", "2_Concepts_and_Techniques", "3_CUDA_Features", "4_CUDA_Libraries", "6_Performance")
SHARED = ["-cudart", "shared"]
PER_THREAD = ["--default-stream", "per-thread"]

sample(f"{INTRO}/vectorAdd", elastic=3, edits={"vectorAdd.cu": FIVE_MILLION})
sample(f"{INTRO}/vectorAdd", flags=SHARED, variant="shared", elastic=3, edits={"vectorAdd.cu": FIVE_MILLION})
sample(f"{INTRO}/vectorAdd", flags=PER_THREAD, variant="per-thread", elastic=3,
       edits={"vectorAdd.cu": FIVE_MILLION})
sample(f"{INTRO}/vectorAdd", flags=SHARED + PER_THREAD, variant="shared-per-thread", elastic=3,
       edits={"vectorAdd.cu": FIVE_MILLION})
driver_sample(f"{INTRO}/vectorAddDrv", "vectorAddDrv.cpp", "vectorAdd_kernel.cu", "vectorAdd_kernel64.fatbin",
              elastic=3, edits={"vectorAddDrv.cpp": ("N = 50000,", "N = 5000000,")})
driver_sample(f"{INTRO}/vectorAddMMAP", "vectorAddMMAP.cpp", "vectorAdd_kernel.cu", "vectorAdd_kernel64.fatbin",
              why="maps its memory by cuMemCreate and cuMemMap itself")
ROWS[-1].build.sources.append("multidevicealloc_memmap.cpp")
sample(f"{INTRO}/vectorAdd_nvrtc", "vectorAdd.cpp", flags=["-lnvrtc", "-lcuda"], copy=["vectorAdd_kernel.cu"],
       elastic=3, edits={"vectorAdd.cpp": FIVE_MILLION})
driver_sample(f"{INTRO}/simpleDrvRuntime", "simpleDrvRuntime.cpp", "vectorAdd_kernel.cu",
              "vectorAdd_kernel64.fatbin", elastic=3,
              edits={"simpleDrvRuntime.cpp": ("N = 50000,", "N = 5000000,")})
sample(f"{INTRO}/matrixMul", args=["-wA=1024", "-hA=1024", "-wB=1024", "-hB=1024"], elastic=3)
driver_sample(f"{INTRO}/matrixMulDrv", "matrixMulDrv.cpp", "matrixMul_kernel.cu", "matrixMul_kernel64.fatbin")
sample(f"{INTRO}/asyncAPI", elastic=1)
sample(f"{INTRO}/asyncAPI", flags=PER_THREAD, variant="per-thread", elastic=1)
sample(f"{INTRO}/clock")
sample(f"{INTRO}/cudaOpenMP", flags=["-Xcompiler", "-fopenmp"], unordered=True)
sample(f"{INTRO}/fp16ScalarProduct")
sample(f"{INTRO}/mergeSort", "main.cpp", "mergeSort.cu", "bitonic.cu", "mergeSort_host.cpp",
       "mergeSort_validate.cpp", elastic=6)
sample(f"{INTRO}/simpleAssert", why="a device assertion: a sticky error must stay what it is")
sample(f"{INTRO}/simpleAtomicIntrinsics", "simpleAtomicIntrinsics.cu", "simpleAtomicIntrinsics_cpu.cpp")
sample(f"{INTRO}/simpleAttributes")
sample(f"{INTRO}/simpleAWBarrier")
sample(f"{INTRO}/simpleCallback", "simpleCallback.cu", "multithreading.cpp", unordered=True)
sample(f"{INTRO}/simpleCooperativeGroups")
sample(f"{INTRO}/simpleHyperQ")
sample(f"{INTRO}/simpleIPC", match="size>=1GiB", unordered=True,
       why="shares its memory by CUDA IPC, which elastic memory refuses: its rule leaves that memory alone")
ROWS[-1].build.sources.append("../../../Common/helper_multiprocess.cpp")
sample(f"{INTRO}/simpleLayeredTexture")
sample(f"{INTRO}/simpleMultiCopy", elastic=8)
sample(f"{INTRO}/simpleMultiCopy", flags=SHARED + PER_THREAD, variant="shared-per-thread", elastic=8)
sample(f"{INTRO}/simpleMultiGPU", elastic=1)
sample(f"{INTRO}/simpleOccupancy", elastic=2)
sample(f"{INTRO}/simplePitchLinearTexture")
sample(f"{INTRO}/simpleStreams", elastic=1)
sample(f"{INTRO}/simpleTemplates")
sample(f"{INTRO}/simpleVoteIntrinsics")
sample(f"{INTRO}/simpleZeroCopy")
sample("1_Utilities/deviceQuery", "deviceQuery.cpp")
sample("1_Utilities/deviceQueryDrv", "deviceQueryDrv.cpp", flags=["-lcuda"])
sample(f"{CONCEPTS}/convolutionSeparable", "main.cpp", "convolutionSeparable.cu", "convolutionSeparable_gold.cpp",
       elastic=3, seconds=6)
sample(f"{CONCEPTS}/histogram", "main.cpp", "histogram64.cu", "histogram256.cu", "histogram_gold.cpp", elastic=1)
sample(f"{CONCEPTS}/reduction", "reduction.cpp", "reduction_kernel.cu", elastic=1)
sample(f"{CONCEPTS}/reductionMultiBlockCG", flags=["-rdc=true"], elastic=1,
       why="one cooperative launch over the whole GPU")
sample(f"{CONCEPTS}/scalarProd", "scalarProd.cu", "scalarProd_cpu.cpp", elastic=2)
sample(f"{CONCEPTS}/scan", "main.cpp", "scan.cu", "scan_gold.cpp", elastic=2)
sample(f"{CONCEPTS}/shfl_scan", elastic=2)
sample(f"{CONCEPTS}/sortingNetworks", "main.cpp", "bitonicSort.cu", "oddEvenMergeSort.cu",
       "sortingNetworks_validate.cpp", elastic=4)
sample(f"{CONCEPTS}/streamOrderedAllocation", why="cudaMallocAsync and its pools")
sample(f"{CONCEPTS}/streamOrderedAllocationIPC", flags=["-lcuda"], unordered=True)
ROWS[-1].build.sources.append("../../../Common/helper_multiprocess.cpp")
sample(f"{CONCEPTS}/threadFenceReduction", elastic=1)
driver_sample(f"{CONCEPTS}/threadMigration", "threadMigration.cpp", "threadMigration_kernel.cu",
              "threadMigration_kernel64.fatbin", args=["-noprompt"], unordered=True,
              masks=((r"Context=", r"0x[0-9a-f]+", "address"),),
              why="a context of its own in each thread, popped here and pushed there")
sample(f"{FEATURES}/StreamPriorities")
sample(f"{FEATURES}/binaryPartitionCG")
sample(f"{FEATURES}/cdpQuadtree", flags=["-rdc=true", "-lcudadevrt"])
sample(f"{FEATURES}/cdpSimplePrint", flags=["-rdc=true", "-lcudadevrt"], unordered=True)
sample(f"{FEATURES}/cdpSimpleQuicksort", flags=["-rdc=true", "-lcudadevrt"])
sample(f"{FEATURES}/cudaCompressibleMemory", "saxpy.cu", "compMalloc.cpp", flags=["-lcuda"])
sample(f"{FEATURES}/cudaTensorCoreGemm", elastic=4)
sample(f"{FEATURES}/globalToShmemAsyncCopy", "globalToShmemAsyncCopy.cu")
sample(f"{FEATURES}/graphConditionalNodes", flags=["-rdc=true", "-lcudadevrt"])
sample(f"{FEATURES}/graphMemoryFootprint",  # how many graphs overlap in time decides on the latter
       masks=((r"0x", r"0x[0-9a-f]+", "address"), (r"^\d\d: +FOOTPRINT", r"\d+ bytes", "bytes")))
sample(f"{FEATURES}/graphMemoryNodes")
sample(f"{FEATURES}/jacobiCudaGraphs", "main.cpp", "jacobi.cu", seconds=6)
driver_sample(f"{FEATURES}/memMapIPCDrv", "memMapIpc.cpp", "memMapIpc_kernel.cu", "memMapIpc_kernel64.ptx",
              unordered=True, why="memory of its own shared with its child by file descriptors")
ROWS[-1].build.sources.append("../../../Common/helper_multiprocess.cpp")
sample(f"{FEATURES}/newdelete", flags=["-rdc=true"])
driver_sample(f"{FEATURES}/ptxjit", "ptxjit.cpp", "ptxjit_kernel.cu", "ptxjit_kernel64.ptx",
              env={"CUDA_CACHE_DISABLE": "1"}, why="tells what was compiled, and not what a cache had")
sample(f"{FEATURES}/simpleCudaGraphs", elastic=1, unordered=True)
sample(f"{FEATURES}/warpAggregatedAtomicsCG", elastic=2)
sample(f"{LIBRARIES}/batchCUBLAS", "batchCUBLAS.cpp", flags=["-lcublas"])
sample(f"{LIBRARIES}/conjugateGradient", "main.cpp", flags=["-lcublas", "-lcusparse"], elastic=5)
sample(f"{LIBRARIES}/conjugateGradientCudaGraphs", flags=["-lcublas", "-lcusparse"], elastic=5)
sample(f"{LIBRARIES}/conjugateGradientMultiBlockCG", flags=["-rdc=true"], seconds=5)
sample(f"{LIBRARIES}/matrixMulCUBLAS", "matrixMulCUBLAS.cpp", flags=["-lcublas"])
sample(f"{LIBRARIES}/simpleCUBLAS", "simpleCUBLAS.cpp", flags=["-lcublas"])
sample(f"{LIBRARIES}/simpleCUFFT", flags=["-lcufft"])
sample(f"{SPEED}/LargeKernelParameter")
sample(f"{SPEED}/alignedTypes", elastic=2)
sample(f"{SPEED}/transpose", args=["-dimX=2048", "-dimY=2048"], elastic=2)

if __name__ == "__main__":
    print("\n".join(dict.fromkeys(row.folder.removeprefix("build/cuda-samples/") for row in ROWS)))
