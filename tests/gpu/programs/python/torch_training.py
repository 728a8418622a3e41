"""A small net is trained; every weight must come out the same."""

from common import show, torch_steady

torch = torch_steady()
device = torch.device("cuda")
net = torch.nn.Sequential(
    torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3, stride=2),
    torch.nn.GELU(), torch.nn.Flatten(), torch.nn.Linear(64 * 15 * 15, 512), torch.nn.LayerNorm(512), torch.nn.Dropout(0.1),
    torch.nn.Linear(512, 10)).to(device)
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
scaler = torch.amp.GradScaler()
images = torch.randn(512, 3, 32, 32, device=device)
labels = torch.randint(0, 10, (512,), device=device)
for step in range(20):
    pick = torch.randperm(512, device=device)[:128]
    with torch.autocast("cuda", dtype=torch.float16):
        loss = torch.nn.functional.cross_entropy(net(images[pick]), labels[pick])
    optimizer.zero_grad(set_to_none=step % 2 == 0)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    print("loss", loss.item())
    if step == 10:
        torch.cuda.empty_cache()
for name, value in net.state_dict().items():
    show(name, value)
