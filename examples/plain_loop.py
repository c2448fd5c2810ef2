"""Gradient methods in a plain PyTorch loop: `python examples/plain_loop.py [--weighting reweight] [--update dotprod]`.

A share of the training labels was overwritten with class 0; a hundred clean examples are kept apart. Any nn.Module
and any loader do: the method gets a function that returns outputs and one that returns the loss of each example.
"""

import argparse

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from gradworks import Method


def spirals(n: int, noisy: float, seed: int) -> TensorDataset:
    """Points (n, 2) on three spiral arms and their labels (n,), a share `noisy` of them overwritten with 0."""
    g = torch.Generator().manual_seed(seed)
    labels, radius = torch.randint(0, 3, (n,), generator=g), torch.rand(n, generator=g)
    angle = 4 * radius + labels * 2.094 + 0.15 * torch.randn(n, generator=g)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    return TensorDataset(points, torch.where(torch.rand(n, generator=g) < noisy, 0, labels))


def train(weighting: str, update: str, epochs: int = 10, seed: int = 0) -> float:
    """Train on noisy labels; returns the accuracy on clean test points."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 64), nn.GELU(), nn.Dropout(0.1), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    loader = DataLoader(spirals(2000, 0.6, seed), batch_size=32, shuffle=True)
    clean_loader = DataLoader(spirals(100, 0.0, seed + 1), batch_size=32, shuffle=True)

    def outputs(model, batch):
        return model(batch[0])

    def loss(z, batch):
        return F.cross_entropy(z, batch[1], reduction="none")

    method = Method(weighting=weighting, update=update, outputs=outputs, loss=loss, seed=seed)
    for _ in range(epochs):
        for batches, clean in method.groups(loader, clean_loader):  # instead of: for batch in loader
            method.backward(model, batches, clean)  # instead of: loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    points, labels = spirals(1000, 0.0, seed + 2).tensors
    with torch.no_grad():
        return (model.eval()(points).argmax(1) == labels).float().mean().item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weighting", default="reweight")
    parser.add_argument("--update", default="dotprod", help="dotprod takes two batches a step")
    args = parser.parse_args()
    for weighting, update in (("uniform", "erm"), (args.weighting, "erm"), (args.weighting, args.update)):
        print(f"{weighting} x {update}: accuracy {train(weighting, update):.3f}")
