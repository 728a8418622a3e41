"""NVIDIA's libraries through torch; each has workspaces and handles of its own."""

from common import show, torch_steady

torch = torch_steady()


def attempt(what, function):
    try:
        show(what, function())
    except (RuntimeError, NotImplementedError) as error:
        print(what, type(error).__name__, str(error).splitlines()[0][:80])


def square(dtype):
    return torch.randn(1536, 1536, device="cuda").to(dtype)


for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
    attempt(f"product {dtype}", lambda dtype=dtype: square(dtype) @ square(dtype))
attempt("int8 product", lambda: torch._int_mm(torch.randint(-9, 9, (512, 512), device="cuda", dtype=torch.int8),
                                              torch.randint(-9, 9, (512, 512), device="cuda", dtype=torch.int8)))
attempt("batched", lambda: torch.bmm(torch.randn(64, 128, 256, device="cuda"), torch.randn(64, 256, 128, device="cuda")))
attempt("fft", lambda: torch.view_as_real(torch.fft.fft2(torch.randn(32, 512, 512, device="cuda"))))
attempt("solve", lambda: torch.linalg.solve(square(torch.float64) + 100 * torch.eye(1536, device="cuda"),
                                            torch.ones(1536, 8, device="cuda", dtype=torch.float64)))
attempt("cholesky", lambda: torch.linalg.cholesky(
    (lambda a: a @ a.T + 2000 * torch.eye(1536, device="cuda", dtype=torch.float64))(square(torch.float64))))
attempt("qr", lambda: torch.linalg.qr(square(torch.float32)[:512, :512])[1])
attempt("singular values", lambda: torch.linalg.svdvals(square(torch.float32)[:256, :256]))
attempt("convolution", lambda: torch.nn.functional.conv2d(torch.randn(16, 64, 112, 112, device="cuda"),
                                                          torch.randn(128, 64, 3, 3, device="cuda")))
attempt("half convolution", lambda: torch.nn.functional.conv2d(
    torch.randn(16, 64, 112, 112, device="cuda", dtype=torch.half), torch.randn(128, 64, 3, 3, device="cuda").half()))
attempt("recurrent", lambda: torch.nn.LSTM(256, 256, 2).cuda()(torch.randn(64, 32, 256, device="cuda"))[0])
attempt("sort", lambda: torch.sort(torch.randn(1 << 22, device="cuda"), stable=True)[1])
attempt("unique", lambda: torch.unique(torch.randint(0, 9999, (1 << 21,), device="cuda")))
attempt("nonzero", lambda: torch.nonzero(torch.randn(1 << 21, device="cuda") > 1))
attempt("sparse", lambda: torch.eye(4096, device="cuda").to_sparse_csr() @ torch.randn(4096, 64, device="cuda"))
attempt("random", lambda: torch.randn(1 << 22, device="cuda", generator=torch.Generator("cuda").manual_seed(9)))
