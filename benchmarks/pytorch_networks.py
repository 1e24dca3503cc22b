"""The networks in PyTorch on the CPU, for `python -m benchmarks.bench pytorch PYTHON`.

The same networks, recipes, images and precision, written as one would write them in PyTorch:
bfloat16 by autocast, channels last, Adam as one kernel, augmentation on whole batches.

- `PYTHON benchmarks/pytorch_networks.py SETTINGS` trains for each line of standard input so many
  batches, or computes their features if the network is frozen, and prints the seconds of a step.
  SETTINGS are a model's parameters as JSON.
- `PYTHON benchmarks/pytorch_networks.py EPOCHS` trains fast94 on data/train/ and validates on
  data/validation/ after each epoch; prints the epochs' seconds and validation accuracies as JSON.
"""

import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

BATCH = 2000
LEARNING_RATE, BIAS_FACTOR, MUON_FACTOR, DECAY = 1.66, 64.0, 0.145, 0.016
CLASSES = 10
MEANS = (123.68, 116.779, 103.939)  # of ImageNet, as in stages/architectures/resnet50_imagenet.py


def cnn(*widths: int, dropout: float) -> nn.Sequential:
    """simple_cnn or complex_cnn, on images of 32 by 32 pixels."""
    layers: list[nn.Module] = []
    side = 32
    for channels, width in pairwise((3, *widths)):
        layers += [nn.Conv2d(channels, width, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        side = (side - 2) // 2
    head = nn.Linear(widths[-1] * side**2, CLASSES)
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), head)


def convolution(channels: int, filters: int, size: int, stride: int = 1) -> nn.Module:
    """A convolution with bias and batch normalization, as in Keras' ResNet50."""
    return nn.Sequential(
        nn.Conv2d(channels, filters, size, stride, padding=size // 2),
        nn.BatchNorm2d(filters, eps=1.001e-5, momentum=0.01),
    )


class ResidualBlock(nn.Module):
    """Three convolutions; the first one of a stage has another in its shortcut, and the stride."""

    def __init__(self, channels: int, filters: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            convolution(channels, filters, 1, stride),
            nn.ReLU(inplace=True),
            convolution(filters, filters, 3),
            nn.ReLU(inplace=True),
            convolution(filters, 4 * filters, 1),
        )
        self.shortcut = convolution(channels, 4 * filters, 1, stride) if first else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.shortcut(x) + self.residual(x), inplace=True)


class Enlarge(nn.Module):
    """Images in [0, 1] to those of `side` pixels that ImageNet's weights expect."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("means", torch.tensor(MEANS).reshape(3, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 255 * functional.interpolate(x, self.side, mode="bilinear") - self.means


def resnet50(enlarge_to: int | None, dropout: float) -> nn.Sequential:
    layers = [Enlarge(enlarge_to)] if enlarge_to else []
    layers += [convolution(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1)]
    channels = 64
    for filters, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        layers.append(ResidualBlock(channels, filters, stride, first=True))
        channels = 4 * filters
        layers += [ResidualBlock(channels, filters, 1, first=False) for _ in range(blocks - 1)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(channels, CLASSES))


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
        for name, value in (("mean", images.mean), ("deviation", images.std)):
            self.register_buffer(name, value((0, 2, 3), keepdim=True), persistent=False)
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
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """An epoch's batches, shuffled, mirrored and shifted by up to 2 pixels."""
    pixels = functional.pad(torch.arange(32.0)[None], (2, 2), mode="reflect")[0].long()
    shifts = torch.randint(0, 5, (2, len(x)))
    for batch in torch.randperm(len(x)).split(BATCH):
        rows, columns = (pixels[shift[batch, None] + torch.arange(32)] for shift in shifts)
        columns = torch.where(flips[batch, None], columns.flip(1), columns)
        index = batch[:, None, None], rows[:, :, None], columns[:, None, :]
        yield x.permute(0, 2, 3, 1)[index].permute(0, 3, 1, 2), y[batch]


def accuracy(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    network.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        predicted = torch.cat([network(part).argmax(1) for part in x.split(BATCH)])
    network.train()
    return float((predicted == y).float().mean())


class Fast94Training:
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

    def step(self, x: torch.Tensor, y: torch.Tensor, rate: float) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.network(x)
        functional.cross_entropy(logits.float(), y, label_smoothing=0.2).backward()
        with torch.no_grad():
            for group in self.sgd.param_groups:
                group["lr"] = rate * group["factor"]
                for parameter in group["params"]:
                    parameter.mul_(1 - rate * DECAY)
            self.sgd.step()
            self.muon.step(rate * MUON_FACTOR)
        self.network.zero_grad(set_to_none=True)


def check_size(network: nn.Module, parameters: int) -> None:
    """Check the number of parameters, with moving averages and without constant scales."""
    constant = [x for x in network.parameters() if x.ndim == 1 and not x.requires_grad]
    numbers = [x.numel() for x in network.state_dict().values() if x.is_floating_point()]
    assert sum(numbers) - sum(x.numel() for x in constant) == parameters


def build(settings: dict[str, Any]) -> nn.Sequential:
    """The network of an entry in params.yaml, with as many parameters as README.md says."""
    dropout = settings.get("dropout", 0.0)
    match settings["architecture"]:
        case "simple_cnn":
            network, parameters = cnn(32, 64, dropout=dropout), 42_442
        case "complex_cnn":
            network, parameters = cnn(32, 64, 128, dropout=dropout), 98_378
        case "resnet50_scratch" | "resnet50_finetune" | "resnet50_imagenet":
            assert settings.get("stem_stride", 4) == 4
            network, parameters = resnet50(settings.get("enlarge_to"), dropout), 23_608_202
    check_size(network, parameters)
    return network.to(memory_format=torch.channels_last)


class AdamTraining:
    def __init__(self, settings: dict[str, Any]) -> None:
        self.network = build(settings)
        if settings["frozen_batch_norm_epochs"] >= settings["epochs"]:
            for layer in self.network.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval().requires_grad_(False)
        self.mixed = settings["precision"] == "mixed_bfloat16"
        self.adam = torch.optim.Adam(
            [x for x in self.network.parameters() if x.requires_grad],
            lr=settings["learning_rate"],
            betas=(settings["momentum"], 0.999),
            eps=1e-7,
            fused=True,
        )

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.mixed):
            logits = self.network(x)
        functional.cross_entropy(logits.float(), y).backward()
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)


def train(epochs: int) -> None:
    x, y = load("train")
    validation = load("validation")
    training = Fast94Training(x)
    flips = torch.rand(len(x)) < 0.5
    step, steps, seconds, accuracies = 0, epochs * -(-len(x) // BATCH), [], []
    for epoch in range(epochs):
        started = time.monotonic()
        for batch in batches(x, y, flips if epoch % 2 == 0 else ~flips):
            training.step(*batch, LEARNING_RATE * (1 - step / steps))
            step += 1
        accuracies.append(accuracy(training.network, *validation))
        seconds.append(time.monotonic() - started)
    print(json.dumps({"seconds": seconds, "accuracies": accuracies}))


def time_steps(settings: dict[str, Any]) -> None:
    x, y = load("train", 5000)
    if settings["architecture"] == "fast94":
        fast94 = Fast94Training(x)
        check_size(fast94.network, 1_973_920)
        batch = next(batches(x, y, torch.rand(len(x)) < 0.5))
        step = partial(fast94.step, *batch, LEARNING_RATE)
    elif settings.get("frozen"):
        network = build(settings)[:-2].eval()  # without dropout and the dense layer
        step = torch.no_grad()(partial(network, x[: settings["batch_size"]]))
    else:
        images = settings["batch_size"]
        step = partial(AdamTraining(settings).step, x[:images], y[:images])
    for line in sys.stdin:
        started = time.monotonic()
        for _ in range(int(line)):
            step()
        print((time.monotonic() - started) / int(line), flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    argument = sys.argv[1]
    if argument.isdigit():
        train(int(argument))
    else:
        time_steps(json.loads(argument))
