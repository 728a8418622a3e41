"""What the Python programs share: short digests instead of contents."""

import hashlib


def digest(data) -> str:
    """Of a torch tensor, a CuPy or JAX array, or anything that numpy understands."""
    import numpy

    if hasattr(data, "detach"):
        import torch

        flat = data.detach().cpu().reshape(-1).clone(memory_format=torch.contiguous_format)
        data = flat.view(torch.uint8).numpy()
    elif hasattr(data, "get"):
        data = data.get()
    return hashlib.sha256(numpy.ascontiguousarray(data).tobytes()).hexdigest()[:16]


def show(what, data) -> None:
    print(what, digest(data), flush=True)


def torch_steady():
    """torch, so set up that two runs of one program agree in every bit."""
    import torch

    torch.manual_seed(1)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch
