"""Measure the pipeline: `make bench`.

    python -m tests.bench train [--models NAME ...] [--epochs N] [--runs N] [--precisions P ...]
    python -m tests.bench memory [--pictures N]
    python -m tests.bench start
    python -m tests.bench operations [--models NAME ...]

`train` runs the notebook's way of training and the train stage in turn, whole processes on the
pictures in data/, and prints medians and ratios; `memory` trains and prepares sets of one and ten
times CIFAR-10's size, generated; `start` times what a command costs before it works; `operations`
counts the floating-point operations of each recorded training and its rate, beside that of a plain
product of matrices.
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
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parent.parent  # a measured process sees this file by a link
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
MODELS = list(PARAMS["notebook_accuracy"])  # those the notebook has
STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
PRECISIONS = ["float32", "mixed_bfloat16"]
HEAVY = ["jax", "keras", "matplotlib", "numpy", "pydantic", "scipy", "tensorflow"]
Measured = tuple[float, float]  # seconds, peak memory in MB


def measure(folder: Path, *command: str) -> Measured:
    """Run Python in `folder` to its end; what it prints goes to a log there."""
    with (folder / "log").open("wb") as log:
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, *command], cwd=folder, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
    if status:
        sys.exit(f"error: {command} failed:\n{(folder / 'log').read_text()[-2000:]}")
    return seconds, usage.ru_maxrss / 1024


def medians(runs: list[Measured]) -> Measured:
    """The median of the seconds and that of the memory."""
    seconds, memory = zip(*runs, strict=True)
    return statistics.median(seconds), statistics.median(memory)


def workspace(folder: Path, epochs: int, precision: str) -> None:
    """Lay out the stages there, with parameters of their own and no data."""
    shutil.copytree(ROOT / "stages", folder / "stages")
    (folder / "tests").symlink_to(ROOT / "tests")
    params = {**PARAMS, "epochs": epochs, "precision": precision}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def notebook(name: str) -> None:
    """The notebook's way: every picture in memory as float32, `fit` splits off the validation."""
    import keras

    from stages.support import archive, params, paths

    settings = params.load()
    pictures = list(archive.read_batches(paths.ARCHIVE, settings.pictures_per_batch))
    train = [batch for batch in pictures if batch[0] != "test_batch"]
    x = np.concatenate([images for _, images, _ in train]).astype("float32") / 255
    y = keras.utils.to_categorical(np.concatenate([labels for _, _, labels in train]), 10)
    del pictures, train

    keras.utils.set_random_seed(settings.seed)
    arguments = params.build_arguments(name, settings.model(name))
    model = import_module(f"stages.architectures.{name}").build(**arguments)
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
    """Print a table: the notebook's way against the stage, in turn, medians of `runs`."""
    if not (ROOT / "data/train").is_dir():
        sys.exit("error: data/train: there is none; run `dvc repro preprocess fetch_weights` first")
    print(f"{epochs} epochs, {runs} runs in turn, whole processes\n")
    print("| model | precision | notebook's way, s | stage, s | ratio (each run) ", end="")
    print("| notebook's way, MB | stage, MB | ratio |\n|---|---|---:|---:|---:|---:|---:|---:|")
    for name in models:
        measured: dict[str, list[Measured]] = {}
        for _ in range(runs):
            for way in ("notebook", *precisions):
                with tempfile.TemporaryDirectory() as temporary:
                    folder = Path(temporary)
                    workspace(folder, epochs, "float32" if way == "notebook" else way)
                    (folder / "data").symlink_to(ROOT / "data")
                    module = ["tests.bench", "notebook"] if way == "notebook" else ["stages.train"]
                    figures = measure(folder, "-m", *module, name)
                measured.setdefault(way, []).append(figures)
        (their_seconds, their_memory), *ours = (medians(runs) for runs in measured.values())
        for precision, (seconds, memory) in zip(precisions, ours, strict=True):
            pairs = zip(measured["notebook"], measured[precision], strict=True)
            ratios = ", ".join(f"{mine[0] / notebooks[0]:.2f}" for notebooks, mine in pairs)
            print(
                f"| {name} | {precision} | {their_seconds:.1f} | {seconds:.1f} "
                f"| {seconds / their_seconds:.2f} ({ratios}) | {their_memory:.0f} | {memory:.0f} "
                f"| {memory / their_memory:.2f} |",
                flush=True,
            )


def generated(pictures: int, batch: int = 10_000) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Random pictures in batches as the archive has them."""
    random = np.random.default_rng(0)
    for start in range(0, pictures, batch):
        count = min(batch, pictures - start)
        images = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
        yield start, images, random.integers(0, 10, count)


def prepare_generated(pictures: int) -> None:
    """Write data/ with so many generated pictures, a tenth to validate."""
    from stages.preprocess import write
    from stages.support import paths

    train = pictures * 9 // 10
    write(generated(pictures), {paths.TRAIN: (0, train), paths.VALIDATION: (train, pictures)})


def bench_memory(pictures: int) -> None:
    """Print peak memory for that many pictures and ten times as many."""
    print("| pictures | preprocess, MB | one epoch of simple_cnn, MB |\n|---:|---:|---:|")
    for count in (pictures, 10 * pictures):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            workspace(folder, 1, "float32")
            _, prepared = measure(folder, "-m", "tests.bench", "prepare", str(count))
            _, trained = measure(folder, "-m", "stages.train", "simple_cnn")
        print(f"| {count:,} | {prepared:.0f} | {trained:.0f} |", flush=True)


def bench_start() -> None:
    """Print how long an idle `dvc repro` and each stage's imports take, and what they import."""
    script = (
        "import sys\nfrom importlib import import_module\nimport_module('stages.{stage}')\n"
        f"print(*(name for name in {HEAVY} if name in sys.modules))"
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
    """Operations a second of a product of square matrices, the median of so many."""
    import tensorflow as tf

    matrix = tf.cast(tf.random.normal((size, size)), precision.removeprefix("mixed_"))
    seconds = []
    for _ in range(runs + 1):  # the first one warms up
        started = time.monotonic()
        tf.linalg.matmul(matrix, matrix)[0, 0].numpy()
        seconds.append(time.monotonic() - started)
    return float(2 * size**3 / statistics.median(seconds[1:]))


def count_operations(name: str) -> float:
    """The floating-point operations of one training step, forward and backward, for a picture.

    TensorFlow's profiler counts those of the convolutions and matrix products in the step's graph.
    """
    import tensorflow as tf

    from stages.support import network, optimization, params, paths
    from stages.support.arrays import Split

    settings = params.load()
    own = settings.model(name)
    model = network.new(name, settings, Split(paths.TRAIN))
    optimization.compile_to_train(model, own, 1, 1)

    @tf.function  # type: ignore[untyped-decorator]
    def step(x: tf.Tensor, y: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        gradients: list[tf.Tensor] = tape.gradient(loss, model.trainable_weights)
        return gradients

    shapes = (tf.TensorSpec((own.batch_size, 32, 32, 3)), tf.TensorSpec((own.batch_size, 10)))
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder.float_operation()
    graph = step.get_concrete_function(*shapes).graph
    options |= {"output": "none", "account_type_regexes": [".*Conv2D.*", ".*MatMul.*"]}
    counted = profiler.profile(graph, options=options)
    return float(counted.total_float_ops / own.batch_size)


def bench_operations(models: list[str]) -> None:
    """Print each recorded training's operations and rates."""
    from stages.support import params, paths
    from stages.support.arrays import Split

    os.chdir(ROOT)
    settings, pictures = params.load(), Split(paths.TRAIN).count
    limits = {precision: matrix_product_rate(precision) for precision in PRECISIONS}
    print("| model | precision | GFLOP a picture and step | PFLOP in all | minutes ", end="")
    print("| GFLOP/s | of a matrix product's |\n|---|---|---:|---:|---:|---:|---:|")
    for name in models:
        own = settings.model(name)
        each = count_operations(name)
        whole = each * pictures * own.epochs
        timing = json.loads((paths.TIMINGS / f"{name}.json").read_text())
        rate, limit = whole / timing["training_seconds"], limits[own.precision]
        print(
            f"| {name} | {own.precision} | {each / 1e9:.3f} | {whole / 1e15:.3f} "
            f"| {timing['training_seconds'] / 60:.1f} | {rate / 1e9:.0f} "
            f"| {rate / limit:.0%} of {limit / 1e9:.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train")
    train.add_argument("--models", nargs="+", default=MODELS[:2], choices=MODELS)
    train.add_argument("--epochs", type=int, default=15)
    train.add_argument("--runs", type=int, default=3)
    train.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    memory = commands.add_parser("memory")
    memory.add_argument("--pictures", type=int, default=50_000)
    commands.add_parser("start")
    operations = commands.add_parser("operations")
    operations.add_argument("--models", nargs="+", default=list(PARAMS["models"]))
    # What the measured processes run.
    program = commands.add_parser("notebook")
    program.add_argument("name")
    prepare = commands.add_parser("prepare")
    prepare.add_argument("pictures", type=int)

    given = vars(parser.parse_args())
    run: dict[str, Callable[..., None]] = {
        "train": bench_train,
        "memory": bench_memory,
        "start": bench_start,
        "operations": bench_operations,
        "notebook": notebook,
        "prepare": prepare_generated,
    }
    run[given.pop("command")](**given)


if __name__ == "__main__":
    main()
