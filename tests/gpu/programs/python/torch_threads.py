"""Eight threads share one process's GPU memory."""

import threading

from common import digest, torch_steady

torch = torch_steady()
torch.ones(1, device="cuda")
results = {}


def life(me):
    generator = torch.Generator(device="cuda").manual_seed(me)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        x = torch.randn(1024, 1024, device="cuda", generator=generator)
        kept = []
        for i in range(30):
            x = torch.nn.functional.normalize(x @ x.T + me)
            kept.append(torch.full(((i % 7 + 1) << 20,), float(me * 100 + i), device="cuda"))
            if len(kept) > 3:
                old = kept.pop(0)
                assert old.min() == old.max(), "another's memory"
            if i % 10 == 9:
                torch.cuda.empty_cache()
        stream.synchronize()
        results[me] = digest(x), [float(k.mean()) for k in kept]


threads = [threading.Thread(target=life, args=(i,)) for i in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for me in sorted(results):
    print(me, *results[me])
