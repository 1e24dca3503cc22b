"""The bench measures both programs on whatever pictures are there."""

import re
import sys

from tests.conftest import Repository


def test_bench_prints_time_memory_and_their_ratios(clone: Repository) -> None:
    bench = [sys.executable, "-m", "tests.bench"]
    command = [*bench, "train", "--models", "simple_cnn", "--epochs", "1", "--runs", "1"]
    rows = [line.split(" | ") for line in clone.check(*command).splitlines()[-2:]]
    assert [row[1] for row in rows] == ["float32", "mixed_bfloat16"]
    for row in rows:
        figures = [float(figure) for figure in re.findall(r"[\d.]+", " ".join(row[2:]))]
        notebook, stage, ratio, _, notebook_memory, memory, memory_ratio = figures
        assert abs(stage / notebook - ratio) < 0.02
        assert abs(memory / notebook_memory - memory_ratio) < 0.02
        assert min(notebook_memory, memory) > 100  # MB

    lines = clone.check(*bench, "memory", "--pictures", "200").splitlines()
    assert [line.split()[1] for line in lines[2:]] == ["200", "2,000"]
