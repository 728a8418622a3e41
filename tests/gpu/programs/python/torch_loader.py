"""Data loader workers and the thread that pins their batches, feeding the GPU."""

from common import show, torch_steady

torch = torch_steady()


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 256

    def __getitem__(self, i):
        generator = torch.Generator().manual_seed(i)
        return torch.randn(3, 128, 128, generator=generator), i


def main():
    loader = torch.utils.data.DataLoader(Numbers(), batch_size=32, num_workers=2, pin_memory=True, persistent_workers=True)
    weight = torch.randn(3, 3, device="cuda")
    for epoch in range(2):
        total = torch.zeros(128, 128, device="cuda")
        for images, numbers in loader:
            images = images.to("cuda", non_blocking=True)
            numbers = numbers.to("cuda", non_blocking=True)
            total += torch.einsum("bchw,cd->hw", images * numbers[:, None, None, None], weight)
        show(f"epoch {epoch}", total)


if __name__ == "__main__":
    main()
