"""Other projects' own tests, run by pytest; what is compared is the outcome of each test."""

from program import Program

SUITES = {
    "memory": ["cuda_tests/test_memory.py", "cuda_tests/test_memory_hook.py", "cuda_tests/test_pinned_memory.py"],
    "driver": ["cuda_tests/test_stream.py", "cuda_tests/test_graph.py", "cuda_tests/test_runtime.py",
               "cuda_tests/test_driver.py", "cuda_tests/test_device.py", "cuda_tests/test_texture.py"],
    "arrays": ["core_tests/test_ndarray.py", "core_tests/test_multithreading.py", "core_tests/test_dlpack.py"],
    "copies": ["core_tests/test_ndarray_copy_and_view.py", "core_tests/test_scan.py", "core_tests/test_userkernel.py"],
    "creation": ["creation_tests/test_basic.py"],
    "libraries": ["cuda_tests/test_cublas.py", "linalg_tests/test_product.py"],
}
TREE = "build/cupy-tests"
SECONDS = (r" in [\d.]+s", r"in [\d.]+s.*", "in # s")
# Values that a failed test or a warning quotes.
ADDRESSES = (r"0x", r"0x[0-9a-f]+", "address")


def _row(name: str, files: list[str]) -> Program:
    return Program(
        name=f"cupy-tests-{name}", group="CuPy's tests", match="size>=2MiB", seconds=18, limit=100,
        command=["{python}", "-m", "pytest", "-q", "-rA", "--tb=no", "--no-header", "--disable-warnings",
                 "-p", "no:cacheprovider", "-p", "no:randomly", "--rootdir", "{tree}/" + TREE, "-c",
                 "{tree}/" + TREE + "/pyproject.toml", "-m", "not slow and not multi_gpu",
                 *(f"{{tree}}/{TREE}/tests/cupy_tests/{file}" for file in files)],
        masks=(SECONDS, ADDRESSES), needs=(TREE,), code=None)


ROWS = [_row(name, files) for name, files in SUITES.items()]

if __name__ == "__main__":
    print("\n".join(file for files in SUITES.values() for file in files))
