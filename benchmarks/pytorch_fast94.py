"""fast94 in PyTorch on the CPU.

The same network, recipe, images and precision, written as one would write it in PyTorch: bfloat16
by autocast, channels last, augmentation on whole batches.

- `PYTHON benchmarks/pytorch_fast94.py EPOCHS` trains on data/train/ and validates on
  data/validation/ after each epoch; prints the epochs' seconds and validation accuracies as JSON.
- Without EPOCHS it trains one batch for each line of standard input and prints the step's seconds,
  as `python -m benchmarks.bench pytorch PYTHON` needs it.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

BATCH, PART = 2000, 500  # gradients of a batch are summed over parts, which fit the caches better
LEARNING_RATE, BIAS_FACTOR, MUON_FACTOR, DECAY = 1.66, 64.0, 0.145, 0.016


class Block(nn.Module):
    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
        self.second = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(filters, eps=1e-12, momentum=0.4) for _ in range(2)
        )
        for convolution, norm in zip((self.first, self.second), self.norms, strict=True):
            nn.init.dirac_(convolution.weight.data[: convolution.in_channels])
            norm.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.gelu(self.norms[0](functional.max_pool2d(self.first(x), 2)))
        return functional.gelu(self.norms[1](self.second(x)))


class Fast94(nn.Module):
    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", images.mean((0, 2, 3), keepdim=True))
        self.register_buffer("deviation", images.std((0, 2, 3), keepdim=True))
        self.whitening = nn.Conv2d(3, 24, 2, bias=False)
        self.whitening.weight.requires_grad_(False)
        patches = functional.unfold((images - self.mean) / self.deviation, 2)
        patches = patches.transpose(1, 2).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + 5e-4).sqrt()).T.reshape(12, 3, 2, 2)
        self.whitening.weight.copy_(torch.cat([filters, -filters]))
        self.blocks = nn.Sequential(Block(24, 64), Block(64, 256), Block(256, 256))
        self.head = nn.Linear(256, 10, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(functional.gelu(self.whitening((x - self.mean) / self.deviation)))
        logits: torch.Tensor = self.head(x.amax((2, 3))) / 9
        return logits


class Muon:
    def __init__(self, kernels: list[nn.Parameter]) -> None:
        self.kernels = kernels
        self.momentums = [torch.zeros_like(kernel) for kernel in kernels]

    def step(self, rate: float) -> None:
        for kernel, momentum in zip(self.kernels, self.momentums, strict=True):
            assert kernel.grad is not None
            momentum.mul_(0.6).add_(kernel.grad)
            x = (kernel.grad + 0.6 * momentum).reshape(len(kernel), -1)
            x = x / x.norm()
            for _ in range(3):
                square = x @ x.T
                x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
            kernel.mul_(len(kernel) ** 0.5 / kernel.norm()).sub_(rate * x.reshape(kernel.shape))


def load(split: str, count: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The first images of a split, (N, 3, H, W) float32 in [0, 1], and their labels (N,)."""
    files = (Path("data") / split / file for file in ("x.npy", "y.npy"))
    images, labels = (np.array(np.load(file, mmap_mode="r")[:count]) for file in files)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255  # stays channels last in memory
    return x, torch.from_numpy(labels.astype(np.int64))


def batches(
    x: torch.Tensor, y: torch.Tensor, flips: torch.Tensor
) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """An epoch's batches, shuffled, mirrored and shifted by up to 2 pixels, in parts."""
    pixels = functional.pad(torch.arange(32.0)[None], (2, 2), mode="reflect")[0].long()
    shifts = torch.randint(0, 5, (2, len(x)))
    for batch in torch.randperm(len(x)).split(BATCH):
        parts = []
        for part in batch.split(PART):
            rows, columns = (pixels[shift[part, None] + torch.arange(32)] for shift in shifts)
            columns = torch.where(flips[part, None], columns.flip(1), columns)
            index = part[:, None, None], rows[:, :, None], columns[:, None, :]
            parts.append((x.permute(0, 2, 3, 1)[index].permute(0, 3, 1, 2), y[part]))
        yield parts


def accuracy(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    network.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        predicted = torch.cat([network(part).argmax(1) for part in x.split(PART)])
    network.train()
    return float((predicted == y).float().mean())


class Training:
    def __init__(self, images: torch.Tensor) -> None:
        with torch.no_grad():
            self.network = Fast94(images[:5000]).to(memory_format=torch.channels_last)
        trained = [x for x in self.network.parameters() if x.requires_grad]
        self.muon = Muon([parameter for parameter in trained if parameter.ndim == 4])
        biases = [parameter for parameter in trained if parameter.ndim == 1]
        groups = [(1.0, [self.network.head.weight]), (BIAS_FACTOR, biases)]
        self.sgd = torch.optim.SGD(
            [{"params": parameters, "factor": factor} for factor, parameters in groups],
            lr=LEARNING_RATE,
            momentum=0.85,
            nesterov=True,
        )

    def step(self, parts: list[tuple[torch.Tensor, torch.Tensor]], rate: float) -> None:
        images = sum(len(labels) for _, labels in parts)
        for inputs, labels in parts:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = self.network(inputs)
            loss = functional.cross_entropy(
                logits.float(), labels, label_smoothing=0.2, reduction="sum"
            )
            (loss / images).backward()
        with torch.no_grad():
            for group in self.sgd.param_groups:
                group["lr"] = rate * group["factor"]
                for parameter in group["params"]:
                    parameter.mul_(1 - rate * DECAY)
            self.sgd.step()
            self.muon.step(rate * MUON_FACTOR)
        self.network.zero_grad(set_to_none=True)


def train(epochs: int) -> None:
    x, y = load("train")
    validation = load("validation")
    training = Training(x)
    flips = torch.rand(len(x)) < 0.5
    step, steps, seconds, accuracies = 0, epochs * -(-len(x) // BATCH), [], []
    for epoch in range(epochs):
        started = time.monotonic()
        for parts in batches(x, y, flips if epoch % 2 == 0 else ~flips):
            training.step(parts, LEARNING_RATE * (1 - step / steps))
            step += 1
        accuracies.append(accuracy(training.network, *validation))
        seconds.append(time.monotonic() - started)
    print(json.dumps({"seconds": seconds, "accuracies": accuracies}))


def time_steps() -> None:
    x, y = load("train", 5000)
    training = Training(x)
    parts = next(batches(x, y, torch.rand(len(x)) < 0.5))
    for _ in sys.stdin:
        started = time.monotonic()
        training.step(parts, LEARNING_RATE)
        print(time.monotonic() - started, flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    if len(sys.argv) > 1:
        train(int(sys.argv[1]))
    else:
        time_steps()
