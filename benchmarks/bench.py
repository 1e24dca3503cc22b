"""Measure time and memory of the pipeline: `make bench`.

    python -m benchmarks.bench train [--models NAME ...] [--precisions PRECISION ...]
                                     [--epochs N] [--runs N]
    python -m benchmarks.bench memory [--images N]
    python -m benchmarks.bench start
    python -m benchmarks.bench operations [--models NAME ...]
    python -m benchmarks.bench steps [--models NAME ...] [--precisions PRECISION ...]
                                     [--ways WAY ...] [--turns N]
    python -m benchmarks.bench pytorch PYTHON [--models NAME ...] [--turns N]

- `train` runs the notebook's training and the train stage in turn, as whole processes on the images
  in data/, and prints medians and ratios.
- `memory` measures the peak memory of preprocessing and training, on as many generated images as
  CIFAR-10 has and on ten times as many.
- `start` times imports and an idle `dvc repro`.
- `operations` counts the floating-point operations of each recorded training run and compares their
  rate to that of a matrix product.
- `steps` times steps with Keras' own layers and optimizer, with fused kernels, and on request
  also with huge pages or jemalloc. The processes take turns of a second, at least one step.
- `pytorch` does so with steps here and in PyTorch. PYTHON is an interpreter with PyTorch and NumPy;
  this environment has no PyTorch.

The step of a frozen network computes the features of a batch.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

# Resolved, because measured processes import this file through a link.
ROOT = Path(__file__).resolve().parent.parent
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
NOTEBOOK_MODELS = list(PARAMS["notebook_accuracy"])
CLASSES = 10
STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
PRECISIONS = ["float32", "mixed_bfloat16"]
SLOW_IMPORTS = ["jax", "keras", "matplotlib", "numpy", "pydantic", "scipy", "tensorflow"]
NOTEBOOK = ["-m", "benchmarks.bench", "notebook"]
STAGE = ["-m", "stages.train"]
TIME_STEPS = [sys.executable, "-m", "benchmarks.bench", "time-steps"]
# What the train stage sets for itself. PyTorch's steps are up to a third shorter with it.
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": "-1",
    "MALLOC_TOP_PAD_": str(2**26),
}
# Kernels and environment of a process whose training steps are timed.
STEP_WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "keras": ("keras", {}),
    "fused": ("fused", {}),
    "huge-pages": ("fused", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}),
    "jemalloc": ("fused", {"LD_PRELOAD": "libjemalloc.so.2"}),
}
Measured = tuple[float, float]  # seconds, peak memory in MB
Steps = tuple[np.ndarray, np.ndarray]  # returned by `alternate`


def measure(folder: Path, *command: str) -> Measured:
    """Run Python in `folder` until it exits; its output goes to a log there."""
    with (folder / "log").open("wb") as log:
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, *command], cwd=folder, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
    if status:
        sys.exit(f"error: {command} failed:\n{(folder / 'log').read_text()[-2000:]}")
    return seconds, usage.ru_maxrss / 1024


def medians(runs: list[Measured]) -> Measured:
    """The medians of seconds and of memory."""
    seconds, memory = zip(*runs, strict=True)
    return statistics.median(seconds), statistics.median(memory)


def workspace(folder: Path, epochs: int, precision: str) -> None:
    """Fill `folder` with the stages and their settings, without data."""
    shutil.copytree(ROOT / "stages", folder / "stages")
    for name in ("benchmarks", "dvc.yaml"):
        (folder / name).symlink_to(ROOT / name)
    training = {**PARAMS["training"], "precision": precision}
    params = {**PARAMS, "epochs": epochs, "training": training}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    measure(folder, "-m", "stages.settings")


def notebook(name: str) -> None:
    """Train as the notebook does: all images in memory as float32, `fit` splits off validation."""
    import keras

    from stages.common import params, paths
    from stages.dataset.splits import Split
    from stages.training import network

    settings, training = params.load(), Split(paths.TRAIN)
    splits = [paths.TRAIN, paths.VALIDATION]
    x = np.concatenate([np.load(split / "x.npy") for split in splits]).astype("float32") / 255
    labels = np.concatenate([np.load(split / "y.npy") for split in splits])
    y = keras.utils.to_categorical(labels, CLASSES)
    model = network.build(name, settings, training, CLASSES)
    model.compile(
        keras.optimizers.Adam(settings.model(name).learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(
        x,
        y,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        validation_split=0.1,
        verbose=2,
    )
    model.save("notebook.keras")


def bench_train(models: list[str], epochs: int, runs: int, precisions: list[str]) -> None:
    """Print a table of medians: the notebook's training and the stage, run in turn."""
    if not (ROOT / "data/train").is_dir():
        sys.exit("error: data/train: not found; run `dvc repro preprocess fetch_weights` first")
    print(f"{epochs} epochs, {runs} runs in turn, as whole processes\n")
    print("| model | precision | notebook, s | stage, s | ratio (each run) ", end="")
    print("| notebook, MB | stage, MB | ratio |\n|---|---|---:|---:|---:|---:|---:|---:|")
    for name in models:
        measured: dict[str, list[Measured]] = {}
        for _ in range(runs):
            for program in ("notebook", *precisions):
                with tempfile.TemporaryDirectory() as temporary:
                    folder = Path(temporary)
                    workspace(folder, epochs, "float32" if program == "notebook" else program)
                    for data in ("train", "validation", "weights"):
                        (folder / "data" / data).symlink_to(ROOT / "data" / data)
                    command = NOTEBOOK if program == "notebook" else STAGE
                    usage = measure(folder, *command, name)
                measured.setdefault(program, []).append(usage)
        notebook_seconds, notebook_memory = medians(measured["notebook"])
        for precision in precisions:
            seconds, memory = medians(measured[precision])
            pairs = zip(measured["notebook"], measured[precision], strict=True)
            ratios = ", ".join(f"{stage[0] / notebook[0]:.2f}" for notebook, stage in pairs)
            print(
                f"| {name} | {precision} | {notebook_seconds:.1f} | {seconds:.1f} "
                f"| {seconds / notebook_seconds:.2f} ({ratios}) "
                f"| {notebook_memory:.0f} | {memory:.0f} | {memory / notebook_memory:.2f} |",
                flush=True,
            )


def random_batches(images: int, batch_size: int = 10_000) -> Iterator[Any]:
    """Random images and labels, as batches of the preprocess stage."""
    from stages.sources.images import Batch

    random = np.random.default_rng(0)
    for start in range(0, images, batch_size):
        count = min(batch_size, images - start)
        pixels = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
        yield Batch(start + np.arange(count), pixels, random.integers(0, CLASSES, count), [])


def prepare_random(images: int) -> None:
    """Write data/ with so many random images, a tenth of them for validation."""
    from stages.preprocess import split_ranges, write
    from stages.sources.images import Images

    classes = [str(number) for number in range(CLASSES)]
    files = [str(number) for number in range(images + 1)]
    source = Images(classes, files, 32, images, 1, random_batches(images + 1))
    ranges = split_ranges(source, 0.1)
    write(source, ranges, {split: split for split in ranges})


def bench_memory(images: int) -> None:
    """Print peak memory for that many images and ten times as many."""
    print("| images | preprocess, MB | one epoch of simple_cnn, MB |\n|---:|---:|---:|")
    for count in (images, 10 * images):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            workspace(folder, 1, "float32")
            _, prepared = measure(folder, "-m", "benchmarks.bench", "prepare", str(count))
            _, trained = measure(folder, "-m", "stages.train", "simple_cnn")
        print(f"| {count:,} | {prepared:.0f} | {trained:.0f} |", flush=True)


def bench_start() -> None:
    """Print the seconds that each stage's imports and an idle `dvc repro` take."""
    script = (
        "import sys\nfrom importlib import import_module\nimport_module('stages.{stage}')\n"
        f"print(*(name for name in {SLOW_IMPORTS} if name in sys.modules))"
    )
    print("| what | median of 3, s | imports |\n|---|---:|---|")
    commands: dict[str, tuple[str, ...]] = {
        f"import stages.{stage}": ("-c", script.format(stage=stage)) for stage in STAGES
    }
    commands["dvc repro, nothing to do"] = ("-m", "dvc", "repro", "--quiet")
    for what, command in commands.items():
        seconds = []
        for _ in range(3):
            started = time.monotonic()
            result = subprocess.run(
                [sys.executable, *command], cwd=ROOT, check=True, capture_output=True, text=True
            )
            seconds.append(time.monotonic() - started)
        print(
            f"| {what} | {statistics.median(seconds):.1f} | {result.stdout.strip()} |", flush=True
        )


def matrix_product_rate(precision: str, size: int = 4096, runs: int = 5) -> float:
    """Floating-point operations per second of a product of square matrices, a median."""
    import tensorflow as tf

    matrix = tf.cast(tf.random.normal((size, size)), precision.removeprefix("mixed_"))
    seconds = []
    for _ in range(runs + 1):  # the first run warms up
        started = time.monotonic()
        tf.linalg.matmul(matrix, matrix)[0, 0].numpy()
        seconds.append(time.monotonic() - started)
    return float(2 * size**3 / statistics.median(seconds[1:]))


def count_operations(name: str) -> float:
    """Floating-point operations per image of one training step, forward and backward.

    TensorFlow's profiler counts those of convolutions and matrix products in the step's graph. Of a
    frozen network they are those of an image's features.
    """
    import tensorflow as tf

    from stages.common import params, paths
    from stages.dataset.splits import Split
    from stages.training import features, network, optimizer

    settings = params.load()
    batch_size = settings.model(name).batch_size
    training = Split(paths.TRAIN)
    model = network.build(name, settings, training, CLASSES)
    optimizer.compile_for_training(model, settings.model(name), steps=1)
    divided = features.divide(model)

    @tf.function  # type: ignore[untyped-decorator]
    def step(x: tf.Tensor, y: tf.Tensor) -> list[tf.Tensor]:
        if divided:
            return [divided[0](x, training=False)]
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        gradients: list[tf.Tensor] = tape.gradient(loss, model.trainable_weights)
        return gradients

    shapes = (tf.TensorSpec((batch_size, *shape)) for shape in (training.image_shape, (CLASSES,)))
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder.float_operation()
    graph = step.get_concrete_function(*shapes).graph
    options |= {"output": "none", "account_type_regexes": [".*Conv2D.*", ".*MatMul.*"]}
    counted = profiler.profile(graph, options=options)
    return float(counted.total_float_ops / batch_size)


def bench_operations(models: list[str]) -> None:
    """Print operations and rates of each recorded training run."""
    from stages.common import params, paths
    from stages.dataset.splits import Split, select
    from stages.dataset.training_length import fit_to

    os.chdir(ROOT)
    settings, splits = params.load(), (Split(paths.TRAIN), Split(paths.VALIDATION))
    matrix_rates = {precision: matrix_product_rate(precision) for precision in PRECISIONS}
    print("| model | precision | GFLOP per image and step | PFLOP in total | minutes ", end="")
    print("| GFLOP/s | relative to a matrix product |\n|---|---|---:|---:|---:|---:|---:|")
    for name in models:
        model_params = settings.model(name)
        per_image = count_operations(name)
        training, validation = select(*splits, model_params, settings.seed)
        passes = training.count * fit_to(model_params, training.count).epochs
        if model_params.build_arguments.get("frozen"):  # features are computed once
            passes = training.count + validation.count
        total = per_image * passes
        recorded = json.loads((paths.PROVENANCE / f"{name}.json").read_text())
        seconds = sum(recorded["epoch_seconds"])
        rate, matrix_rate = total / seconds, matrix_rates[model_params.precision]
        print(
            f"| {name} | {model_params.precision} | {per_image / 1e9:.3f} | {total / 1e15:.3f} "
            f"| {seconds / 60:.1f} | {rate / 1e9:.0f} "
            f"| {rate / matrix_rate:.0%} of {matrix_rate / 1e9:.0f} |",
            flush=True,
        )


def time_steps(name: str, precision: str, kernels: str) -> None:
    """For each line of standard input, train so many batches and print the seconds of a step."""
    from stages.common import params, paths
    from stages.dataset.batch_loader import BatchLoader
    from stages.dataset.splits import Split
    from stages.training import callbacks, features, network, optimizer
    from stages.training.fused_kernels import fused_layers
    from stages.training.memory_allocator import keep_freed_memory

    keep_freed_memory()
    settings, training = params.load(), Split(paths.TRAIN)
    fused = kernels == "fused"
    update = {"precision": precision, "fused_kernels": fused}
    model_params = settings.models[name] = settings.model(name).model_copy(update=update)
    model = network.build(name, settings, training, CLASSES)
    callbacks.FrozenBatchNormalization(
        model, model_params.frozen_batch_norm_epochs, model_params.epochs
    )
    optimizer.compile_for_training(model, model_params, steps=1000)
    x, y = BatchLoader(training, CLASSES, model_params.batch_size)[0]
    step = partial(model.train_on_batch, x, y)
    if divided := features.divide(model):
        step = partial(divided[0].predict_on_batch, x)
    with fused_layers(model) if fused else nullcontext():
        for line in sys.stdin:
            started = time.monotonic()
            for _ in range(int(line)):
                step()
            print((time.monotonic() - started) / int(line), flush=True)


def alternate(commands: list[list[str]], variables: Sequence[dict[str, str]], turns: int) -> Steps:
    """Seconds of a step in each turn (commands, turns) and peak memory in MB (commands,).

    The commands run at the same time, but only one of them trains at a time, so that what else the
    machine does slows all of them alike. A turn is a step, or as many as take a second: threads
    that still wait for work slow down the next process's first milliseconds. Two steps come first,
    which trace the network, and a turn to warm up.
    """
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for command, environment in zip(commands, variables, strict=True)
    ]
    seconds = np.empty((len(processes), turns + 3))
    steps = 1
    for turn in range(turns + 3):
        for index, process in enumerate(processes):
            assert process.stdout
            print(steps, file=process.stdin, flush=True)
            line = process.stdout.readline()
            if not line:
                sys.exit(f"error: {' '.join(commands[index])}: failed; see its message above")
            seconds[index, turn] = float(line)
        if turn == 1:
            steps = max(1, round(1 / seconds[:, turn].max()))
    memory = []
    for process in processes:
        assert process.stdin
        process.stdin.close()
        memory.append(os.wait4(process.pid, 0)[2].ru_maxrss / 1024)
    return seconds[:, 3:], np.array(memory)


def quartiles(values: np.ndarray, digits: int) -> str:
    """Median and quartiles as "2 (1, 3)"."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.{digits}f} ({low:.{digits}f}, {high:.{digits}f})"


def print_steps(first_cells: str, names: list[str], measured: Steps) -> None:
    """Print a row for each command of `alternate`; ratios are relative to the first one."""
    seconds, memory = measured
    for name, times, peak in zip(names, seconds, memory, strict=True):
        print(
            f"| {first_cells} | {name} | {np.median(times):.3f} "
            f"| {quartiles(times / seconds[0], 2)} | {peak:.0f} |",
            flush=True,
        )


def bench_steps(models: list[str], precisions: list[str], ways: list[str], turns: int) -> None:
    """Print the seconds of a training step in each of these ways."""
    from stages.common import params

    os.chdir(ROOT)
    settings = params.load()
    print("| model | precision | images | step | seconds | ratio (quartiles) | peak MB |")
    print("|---|---|---:|---|---:|---:|---:|")
    kernels, variables = zip(*(STEP_WAYS[way] for way in ways), strict=True)
    for name in models:
        model_params = settings.model(name)
        for precision in precisions or [model_params.precision]:
            commands = [[*TIME_STEPS, name, precision, choice] for choice in kernels]
            cells = f"{name} | {precision} | {model_params.batch_size}"
            print_steps(cells, ways, alternate(commands, variables, turns))


def bench_pytorch(python: str, models: list[str], turns: int) -> None:
    """Print the seconds of a training step here and in PyTorch."""
    from stages.common import params

    os.chdir(ROOT)
    settings = params.load()
    print("| model | precision | images | here, s (quartiles) | PyTorch, s (quartiles) ", end="")
    print("| ratio (quartiles) | peak MB |\n|---|---|---:|---:|---:|---:|---:|")
    for name in models:
        model_params = settings.model(name)
        commands = [
            [*TIME_STEPS, name, model_params.precision, "fused"],
            [python, "benchmarks/pytorch_networks.py", model_params.model_dump_json()],
        ]
        (here, pytorch), (memory, pytorch_memory) = alternate(commands, [{}, ALLOCATOR], turns)
        print(
            f"| {name} | {model_params.precision} | {model_params.batch_size} "
            f"| {quartiles(here, 4)} | {quartiles(pytorch, 4)} | {quartiles(here / pytorch, 2)} "
            f"| {memory:.0f} / {pytorch_memory:.0f} |",
            flush=True,
        )


def main() -> None:
    # Not that of `stages.common`: the notebook's process must not import `stages` before Keras.
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train")
    train.add_argument("--models", nargs="+", default=NOTEBOOK_MODELS[:2], choices=NOTEBOOK_MODELS)
    train.add_argument("--epochs", type=int, default=15)
    train.add_argument("--runs", type=int, default=3)
    train.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    memory = commands.add_parser("memory")
    memory.add_argument("--images", type=int, default=50_000)
    commands.add_parser("start")
    operations = commands.add_parser("operations")
    operations.add_argument("--models", nargs="+", default=list(PARAMS["models"]))
    pytorch = commands.add_parser("pytorch")
    pytorch.add_argument("python")
    pytorch.add_argument("--models", nargs="+", default=list(PARAMS["models"]))
    pytorch.add_argument("--turns", type=int, default=20)
    timed = commands.add_parser("steps")
    timed.add_argument("--models", nargs="+", default=list(PARAMS["models"]))
    timed.add_argument("--precisions", nargs="+", default=[], choices=PRECISIONS)
    timed.add_argument("--ways", nargs="+", default=["keras", "fused"], choices=STEP_WAYS)
    timed.add_argument("--turns", type=int, default=20)
    # These are the measured processes.
    timed = commands.add_parser("time-steps")
    timed.add_argument("name")
    timed.add_argument("precision", choices=PRECISIONS)
    timed.add_argument("kernels", choices=["keras", "fused"])
    program = commands.add_parser("notebook")
    program.add_argument("name")
    prepare = commands.add_parser("prepare")
    prepare.add_argument("images", type=int)

    arguments = vars(parser.parse_args())
    functions: dict[str, Callable[..., None]] = {
        "train": bench_train,
        "memory": bench_memory,
        "start": bench_start,
        "operations": bench_operations,
        "pytorch": bench_pytorch,
        "steps": bench_steps,
        "time-steps": time_steps,
        "notebook": notebook,
        "prepare": prepare_random,
    }
    functions[arguments.pop("command")](**arguments)


if __name__ == "__main__":
    main()
