"""CUDA graphs in torch: captures, shared pools, graphed callables, all capture modes."""

from common import show, torch_steady

torch = torch_steady()
net = torch.nn.Sequential(torch.nn.Linear(1024, 2048), torch.nn.ReLU(), torch.nn.Linear(2048, 1024)).cuda()
inputs = torch.zeros(64, 1024, device="cuda")

warm = torch.cuda.Stream()
warm.wait_stream(torch.cuda.current_stream())
with torch.cuda.stream(warm):
    for _ in range(3):
        net(inputs)
torch.cuda.current_stream().wait_stream(warm)

pool, graphs = torch.cuda.graph_pool_handle(), []
for mode in ("global", "thread_local", "relaxed"):
    graph = torch.cuda.CUDAGraph()
    graphs.append(graph)  # a pool lasts as long as a graph has it
    with torch.cuda.graph(graph, pool=pool, capture_error_mode=mode), torch.no_grad():
        hidden = torch.zeros(1 << 22, device="cuda")  # from the graph's pool
        hidden += 1
        out = net(inputs) + hidden[:1024]
    for round in range(3):
        inputs.copy_(torch.randn(64, 1024, device="cuda"))
        graph.replay()
        show(f"{mode} {round}", out)
    other = torch.full((8 << 20,), 3.0, device="cuda")  # memory taken between replays
    graph.replay()
    show(f"{mode} beside others", out)
    show("others", other)

graphed = torch.cuda.make_graphed_callables(net, (torch.randn(64, 1024, device="cuda", requires_grad=True),))
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
for step in range(5):
    optimizer.zero_grad(set_to_none=False)
    loss = graphed(torch.randn(64, 1024, device="cuda", requires_grad=True)).square().mean()
    loss.backward()
    optimizer.step()
    print("loss", loss.item())
for name, value in net.state_dict().items():
    show(name, value)
del graph, graphs, graphed
torch.cuda.synchronize()
torch.cuda.empty_cache()
show("afterwards", torch.ones(1 << 22, device="cuda"))
