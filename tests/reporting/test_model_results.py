"""Reading a model's results: what is damaged is refused in one line with the remedy."""

import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from stages.common.errors import StageError
from stages.reporting import model_results
from stages.reporting.model_results import CURVES
from stages.sources.archive import CLASSES
from tests.reporting.results import model_result

IMAGES = 40
LABELS = np.arange(IMAGES) % 10
EVALUATION = "data/evaluations/cnn/evaluation.json"
PROBABILITIES = "data/evaluations/cnn/probabilities.npy"
VAL_LOSS = "metrics/curves/cnn/plots/metrics/val_loss.tsv"
TIMING = "metrics/timings/cnn.json"
SHA256 = "0" * 64


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results of a model `cnn`, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for file in (EVALUATION, VAL_LOSS, TIMING):
        Path(file).parent.mkdir(parents=True)
    write_results()
    return tmp_path


def write_results() -> None:
    result = model_result("cnn", IMAGES)
    evaluation = {
        key: getattr(result, key)
        for key in ("classes", "image_size", "accuracy", "loss", "parameters")
    }
    write(EVALUATION, json.dumps({**evaluation, "sha256": SHA256, "software": {"keras": "3"}}))
    np.save(PROBABILITIES, result.probabilities)
    for column in CURVES:
        write(VAL_LOSS.replace("val_loss", column), f"step\t{column}\n0\t0.5\n1\t0.25\n")
    write(TIMING, json.dumps({"model_sha256": SHA256, "epoch_seconds": [30, 30.0]}))


def write(file: str, content: str | bytes) -> None:
    Path(file).write_bytes(content.encode() if isinstance(content, str) else content)


def edit(**changes: object) -> Callable[[], None]:
    """Set keys of evaluation.json, or remove those set to `...`."""

    def damage() -> None:
        content = {**json.loads(Path(EVALUATION).read_text()), **changes}
        content = {key: value for key, value in content.items() if value is not ...}
        write(EVALUATION, json.dumps(content))

    return damage


def replace(file: str, content: str | bytes) -> Callable[[], None]:
    return lambda: write(file, content)


def save(array: np.ndarray) -> Callable[[], None]:
    return lambda: np.save(PROBABILITIES, array, allow_pickle=True)


def probabilities(value: float) -> np.ndarray:
    """Probabilities of which the first one is replaced by `value`."""
    array = np.full((IMAGES, 10), 0.1, np.float32)
    array[0, 0] = value
    return array


def header(shape: str, descr: str = "'<f4'") -> bytes:
    """The beginning of a .npy file."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


WRONG_VALUES: dict[str, list[object]] = {
    "accuracy": ["0.5", None, True, [0.5], {}, -0.1, 1.1, math.nan, ...],
    "loss": ["1", None, False, -1, math.nan, math.inf, ...],
    "parameters": ["1", None, True, 1.5, -1, ...],
    "sha256": [1, None, [], ...],
    "software": ["keras", None, [], {"keras": 3}, ...],
}
DAMAGED_EVALUATIONS = {
    **{
        f"{key}: {value}": edit(**{key: value})
        for key, values in WRONG_VALUES.items()
        for value in values
    },
    "additional key": edit(accuracies=1),
    "empty": replace(EVALUATION, ""),
    "truncated": replace(EVALUATION, '{"accuracy": 0.5,'),
    "not UTF-8": replace(EVALUATION, b'{"accuracy": "\xff"}'),
    "not JSON": replace(EVALUATION, "accuracy: 0.5"),
    "list": replace(EVALUATION, "[]"),
    "number": replace(EVALUATION, "1"),
    "nested 100,000 deep": replace(EVALUATION, "[" * 100_000),
    "missing": lambda: Path(EVALUATION).unlink(),
}
DAMAGED_PROBABILITIES = {
    "other number of images": save(probabilities(0.1)[:3]),
    "no images": save(probabilities(0.1)[:0]),
    "other classes": save(np.full((IMAGES, 9), 1 / 9, np.float32)),
    "one dimension": save(np.ones(IMAGES, np.float32)),
    "float64": save(probabilities(0.1).astype(float)),
    "big-endian": save(probabilities(0.1).astype(">f4")),
    "complex": save(probabilities(0.1).astype(complex)),
    "text": save(np.full((IMAGES, 10), "0.1")),
    "objects": save(np.full((IMAGES, 10), 0.1, object)),
    "records": save(np.zeros(IMAGES, [("a", "f4")])),
    "Fortran order": save(np.asfortranarray(probabilities(0.1))),
    "NaN": save(probabilities(np.nan)),
    "infinity": save(probabilities(np.inf)),
    "negative": save(probabilities(-0.1)),
    "sum 1.1": save(probabilities(0.2)),
    "zeros": save(np.zeros((IMAGES, 10), np.float32)),
    "logits": save(np.full((IMAGES, 10), 5, np.float32)),
    "empty": replace(PROBABILITIES, b""),
    "archive": replace(PROBABILITIES, b"PK\x03\x04" + bytes(100)),
    "truncated": replace(PROBABILITIES, header(f"({IMAGES}, 10)") + bytes(100)),
    "header of 40 TB": replace(PROBABILITIES, header("(1000000000000, 10)") + bytes(100)),
    "overflowing shape": replace(PROBABILITIES, header("(4294967296, 4294967296, 10)")),
    "negative shape": replace(PROBABILITIES, header(f"(-{IMAGES}, 10)") + bytes(1600)),
    "shape of text": replace(PROBABILITIES, header("'40'") + bytes(1600)),
    "unclosed header": replace(PROBABILITIES, header("(((((((((((((") + bytes(1600)),
    "chained signs": replace(PROBABILITIES, header("-" * 9_000 + "1") + bytes(1600)),
    "descriptor without type": replace(PROBABILITIES, header("(40, 10)", "('<f4',)")),
    "missing": lambda: Path(PROBABILITIES).unlink(),
}
DAMAGED_CURVES = {
    "NaN": replace(VAL_LOSS, "step\tval_loss\n0\tnan\n1\t1\n"),
    "infinity": replace(VAL_LOSS, "step\tval_loss\n0\t1\n1\tinf\n"),
    "text": replace(VAL_LOSS, "step\tval_loss\n0\tlow\n1\t1\n"),
    "empty value": replace(VAL_LOSS, "step\tval_loss\n0\t\n1\t1\n"),
    "row cut off": replace(VAL_LOSS, "step\tval_loss\n0\t1\n1"),
    "other column": replace(VAL_LOSS, "step\tloss\n0\t1\n1\t1\n"),
    "commas": replace(VAL_LOSS, "step,val_loss\n0,1\n1,1\n"),
    "an epoch less": replace(VAL_LOSS, "step\tval_loss\n0\t1\n"),
    "an epoch more": replace(VAL_LOSS, "step\tval_loss\n0\t1\n1\t1\n2\t1\n"),
    "no epoch": replace(VAL_LOSS, "step\tval_loss\n"),
    "empty": replace(VAL_LOSS, ""),
    "not UTF-8": replace(VAL_LOSS, b"step\tval_loss\n0\t\xff\n1\t1\n"),
    "zeros": replace(VAL_LOSS, bytes(100)),
    "field of 1 MB": replace(VAL_LOSS, "step\tval_loss\n0\t" + "1" * 1_000_000),
    "missing": lambda: Path(VAL_LOSS).unlink(),
}


def assert_refused(damage: Callable[[], None], file: str, stage: str) -> None:
    """Reading ends in one line that names the file and the stage that writes it."""
    write_results()
    damage()
    with pytest.raises(StageError) as error:
        model_results.read("cnn", CLASSES, LABELS)
    message = str(error.value)
    assert message.startswith(f"error: {file}: "), message
    assert message.endswith(f"; run `dvc repro --force --single-item {stage}`, then `dvc repro`")
    assert len(message.splitlines()) == 1
    assert len(message) < 500


@pytest.mark.parametrize(
    ("cases", "file", "stage"),
    [
        (DAMAGED_EVALUATIONS, EVALUATION, "evaluate@cnn"),
        (DAMAGED_PROBABILITIES, PROBABILITIES, "evaluate@cnn"),
        (DAMAGED_CURVES, VAL_LOSS, "train@cnn"),
    ],
    ids=["evaluation", "probabilities", "curves"],
)
def test_damaged_results_are_refused_in_one_line(
    folder: Path, cases: dict[str, Callable[[], None]], file: str, stage: str
) -> None:
    for name, damage in cases.items():
        print(name)
        assert_refused(damage, file, stage)


def flipped(content: bytes) -> Iterator[bytes]:
    """Copies of `content` with one to three bytes changed."""
    generator = random.Random(0)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(generator.randint(1, 3)):
            damaged[generator.randrange(min(len(content), 200))] = generator.randrange(256)
        yield bytes(damaged)


@pytest.mark.parametrize("file", [EVALUATION, PROBABILITIES, VAL_LOSS, TIMING])
def test_flipped_bytes_are_refused_in_one_line_or_harmless(folder: Path, file: str) -> None:
    outcomes = []
    for content in flipped(Path(file).read_bytes()):
        write(file, content)
        try:
            result = model_results.read("cnn", CLASSES, LABELS)
        except StageError:
            outcomes.append("refused")
        else:
            assert np.isfinite([result.loss, *result.curves["val_loss"], *result.minutes]).all()
            assert np.isfinite(result.probabilities).all()
            outcomes.append("read")
    assert ("refused" in outcomes) == (file != TIMING)


def test_results_are_read_as_they_were_written(folder: Path) -> None:
    written, read = model_result("cnn", IMAGES), model_results.read("cnn", CLASSES, LABELS)
    assert (read.accuracy, read.loss, read.parameters) == (written.accuracy, 2.0, 1000)
    assert np.array_equal(read.probabilities, written.probabilities)
    assert read.curves["val_loss"] == [0.5, 0.25]
    assert read.minutes == [0.5, 1.0]


def test_damaged_timing_counts_as_not_recorded(folder: Path) -> None:
    timing = {"model_sha256": SHA256, "epoch_seconds": [30, 30.0]}
    for content in (
        "",
        "[]",
        "\xff",
        "[" * 100_000,
        json.dumps({**timing, "model_sha256": "of another file"}),
        *(
            json.dumps({**timing, "epoch_seconds": seconds})
            for seconds in (
                None,
                60,
                "60",
                [30],
                [30, 30, 30],
                [30, None],
                [30, -1],
                [30, math.nan],
            )
        ),
    ):
        write(TIMING, content)
        assert model_results.read("cnn", CLASSES, LABELS).minutes == []
    Path(TIMING).unlink()
    assert model_results.read("cnn", CLASSES, LABELS).minutes == []
