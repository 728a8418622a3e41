"""torch.compile: generated Triton kernels, and CUDA graphs by reduce-overhead."""

import torch
from common import show

torch.manual_seed(3)


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one = torch.nn.Linear(512, 1024)
        self.two = torch.nn.Linear(1024, 512)
        self.norm = torch.nn.LayerNorm(512)

    def forward(self, x):
        return self.norm(x + self.two(torch.nn.functional.gelu(self.one(x)))).softmax(-1)


block = Block().cuda()
x = torch.randn(256, 512, device="cuda")
eager = block(x)
for mode in (None, "reduce-overhead"):
    torch._dynamo.reset()
    compiled = torch.compile(block, mode=mode)
    for round in range(4):
        with torch.no_grad():
            out = compiled(x * (round + 1)).clone()
        show(f"{mode} {round}", out)
    with torch.no_grad():
        print("near eager", torch.allclose(compiled(x), eager, atol=1e-4))
torch._dynamo.reset()
trained = torch.compile(block)
for step in range(3):
    loss = trained(x)[:, 0].log().mean()
    loss.backward()
    print("loss", loss.item())
for name, value in block.named_parameters():
    show(name, value.grad)
