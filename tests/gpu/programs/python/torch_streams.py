"""Streams, events and pinned copies, with memory that moves between streams."""

from common import show, torch_steady

torch = torch_steady()
streams = [torch.cuda.Stream(priority=-(i % 2)) for i in range(4)]
host = torch.randn(4, 1 << 21).pin_memory()
back = torch.empty_like(host).pin_memory()
for round in range(10):
    done = []
    for i, stream in enumerate(streams):
        with torch.cuda.stream(stream):
            x = host[i].to("cuda", non_blocking=True)
            if done:
                stream.wait_event(done[-1][1])
                y = done[-1][0]
                y.record_stream(stream)
                x = x + y * 0.5
            x = torch.sort(x)[0] if round % 3 == 0 else x.flip(0) * 1.01
            back[i].copy_(x, non_blocking=True)
            event = torch.cuda.Event()
            event.record(stream)
            done.append((x, event))
    torch.cuda.synchronize()
    show(f"round {round}", back)
    host.copy_(back.clamp(-10, 10))
a = torch.randn(2048, 2048, device="cuda")
show("product", a @ a.T)
