"""The benchmarks run on whatever images are in data/."""

import re
import sys

from tests.repository import Repository

BENCH = [sys.executable, "-m", "benchmarks.bench"]


def test_bench_train_prints_time_memory_and_their_ratios(clone: Repository) -> None:
    command = [*BENCH, "train", "--models", "simple_cnn", "--epochs", "1", "--runs", "1"]
    rows = [line.split(" | ") for line in clone.check(*command).splitlines()[-2:]]
    assert [row[1] for row in rows] == ["float32", "mixed_bfloat16"]
    for row in rows:
        numbers = [float(number) for number in re.findall(r"[\d.]+", " ".join(row[2:]))]
        notebook, stage, ratio, _, notebook_memory, memory, memory_ratio = numbers
        assert abs(stage / notebook - ratio) < 0.02
        assert abs(memory / notebook_memory - memory_ratio) < 0.02
        assert min(notebook_memory, memory) > 100  # MB


def test_bench_memory_measures_ten_times_as_many_images_too(clone: Repository) -> None:
    lines = clone.check(*BENCH, "memory", "--images", "200").splitlines()
    assert [line.split()[1] for line in lines[2:]] == ["200", "2,000"]


def test_bench_steps_times_steps_of_processes_that_take_turns(clone: Repository) -> None:
    command = [*BENCH, "steps", "--models", "simple_cnn", "--turns", "3"]
    rows = [line.split(" | ") for line in clone.check(*command).splitlines()[-2:]]
    assert [row[3] for row in rows] == ["keras", "fused"]
    assert rows[0][5] == "1.00 (1.00, 1.00)"
    for row in rows:
        assert float(row[4]) > 0  # seconds
        assert float(row[6].removesuffix(" |")) > 100  # MB
