"""Tensors shared between processes by CUDA IPC, and children by spawn and by fork."""

import torch
import torch.multiprocessing as multiprocessing
from common import digest, show


def child(me, queue, answers):
    shared = queue.get()
    shared.mul_(me + 2)
    torch.cuda.synchronize()
    own = torch.full((20 << 20,), float(me), device="cuda")
    answers.put((me, digest(own[: 1 << 20])))
    del shared


def no_cuda(number):
    return number * number


def main():
    torch.manual_seed(4)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print("forked", pool.map(no_cuda, range(6)))
    context = multiprocessing.get_context("spawn")
    large = torch.arange(40 << 20, device="cuda", dtype=torch.float32)
    tensor = torch.randn(1 << 16, device="cuda")
    show("before", tensor)
    for me in range(2):
        queue, answers = context.Queue(), context.Queue()
        process = context.Process(target=child, args=(me, queue, answers))
        process.start()
        queue.put(tensor)
        print("child", *answers.get(timeout=60))
        process.join(60)
        print("exit", process.exitcode)
        show("after", tensor)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print("forked late", pool.map(no_cuda, range(6)))
    show("large", large)


if __name__ == "__main__":
    main()
