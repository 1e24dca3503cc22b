"""The settings beyond the notebook's: each does what params.yaml says, and none costs a byte."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from stages.support.arrays import Split, create, write_rows
from stages.support.batches import Batches, moved
from tests.conftest import Repository, in_keras, training_results, wait_until

RECIPE = {
    "optimizer": "sgd",
    "learning_rate": 0.02,
    "weight_decay": 0.01,
    "bias_learning_rate": 4.0,
    "schedule": "cosine",
    "warmup": 0.3,
    "label_smoothing": 0.1,
    "weight_averaging": 0.5,
    "flip": "alternating",
    "translate": 3,
    "frozen_batch_norm_epochs": 3,
    "views": 6,
}
NORMALIZED_NETWORK = """import keras
from keras import layers


def build() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(4, 3, strides=4),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax"),
        ]
    )
"""


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """60 pictures of noise."""
    random = np.random.default_rng(0)
    create(tmp_path / "split", 60)
    pictures = random.random((60, 32, 32, 3), np.float32)
    write_rows(tmp_path / "split", 0, pictures, np.eye(10, dtype=np.float32)[np.arange(60) % 10])
    return Split(tmp_path / "split")


def epoch(batches: Batches, seed: int, number: int) -> np.ndarray:
    """The pictures of an epoch, (N, 32, 32, 3), in the split's order."""
    batches.shuffle(seed, number)
    x = np.concatenate([batches[index][0] for index in range(len(batches))])
    return x[np.argsort(batches.order)]


def test_a_moved_picture_is_the_picture_and_its_reflection() -> None:
    picture = np.arange(5 * 5, dtype=np.float32).reshape(1, 5, 5, 1)
    framed = np.pad(picture, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    for down in range(-2, 3):
        for right in range(-2, 3):
            shifted = framed[:, 2 - down : 7 - down, 2 - right : 7 - right]
            for flip in (False, True):
                x = moved(picture, np.array([flip]), np.array([[down, right]]))
                assert np.array_equal(x, shifted[:, :, ::-1] if flip else shifted)


def test_alternating_shows_each_picture_mirrored_in_every_other_epoch(split: Split) -> None:
    batches = Batches(split, 7)
    batches.augment("alternating", 0)
    original = split.read("x.npy", np.arange(60))
    epochs = [epoch(batches, 3, number) for number in range(4)]
    mirrored = [(x == original).all(axis=(1, 2, 3)) for x in epochs]
    for before, after in pairwise(mirrored):
        assert np.array_equal(before, ~after)
    assert 10 < mirrored[0].sum() < 50
    assert np.array_equal(epochs[0], epochs[2])
    assert np.array_equal(epochs[0][:, :, ::-1], epochs[1])


def test_an_epochs_pictures_follow_from_seed_and_number_alone(split: Split) -> None:
    first, second = Batches(split, 7), Batches(split, 7)
    for batches in (first, second):
        batches.augment("random", 2)
    epochs = [epoch(first, 3, number) for number in range(3)]
    assert np.array_equal(epoch(second, 3, 2), epochs[2])
    assert not np.array_equal(epochs[1], epochs[2])
    assert not np.array_equal(epoch(second, 4, 2), epochs[2])
    # Two processes see the halves of the very batches that one sees.
    halves = [Batches(split, 7, process, 2) for process in range(2)]
    for half in halves:
        half.augment("random", 2)
        half.shuffle(3, 2)
    first.shuffle(3, 2)
    for index in range(len(first)):
        both = [half[index] for half in halves]
        for whole, parts in zip(first[index], zip(*both, strict=True), strict=True):
            assert np.array_equal(whole, np.concatenate(parts))


def test_optimizers_learn_as_the_settings_say(tmp_path: Path) -> None:
    script = """
import json, keras
from stages.support import optimization, params

settings = params.ModelParams(
    epochs=1, batch_size=1, precision="float32", optimizer="sgd", momentum=0.0, weight_decay=0.1,
    bias_learning_rate=8.0, schedule="cosine", warmup=0.25, label_smoothing=0.0,
    weight_averaging=0.0, flip="none", translate=0, frozen_batch_norm_epochs=0, views=1,
    weights="random", learning_rate=0.5,
)
rate = optimization.learning_rate(settings, 100)
constant = settings.model_copy(update={"schedule": "constant", "warmup": 0.0})
warmed = settings.model_copy(update={"schedule": "constant"})
warmed_rate = optimization.learning_rate(warmed, 100)
moved = {}
for kind in ("sgd", "adam"):
    chosen = constant.model_copy(update={"optimizer": kind, "weight_decay": 0.0})
    kernel = keras.Variable([1.0], name="kernel")
    bias = keras.Variable([1.0], name="bias")
    optimizer = optimization.new_optimizer(chosen, 100, 8.0)
    optimizer.apply([keras.ops.ones(1), keras.ops.ones(1)], [kernel, bias])
    moved[kind] = [1 - float(kernel[0]), 1 - float(bias[0])]
decayed = keras.Variable([1.0], name="kernel")
optimization.new_optimizer(constant, 100).apply([keras.ops.zeros(1)], [decayed])
averaging = constant.model_copy(update={"weight_averaging": 0.9, "weight_decay": 0.0})
averaged = keras.Variable([1.0], name="kernel")
optimizer = optimization.new_optimizer(averaging, 100)
for _ in range(2):
    optimizer.apply([keras.ops.ones(1)], [averaged])
optimizer.finalize_variable_values([averaged])
print(json.dumps({
    "rates": [float(rate(step)) for step in (0, 25, 62.5, 100)],
    "warmed": [float(warmed_rate(step)) for step in (0, 12.5, 25, 100)],
    "constant": optimization.learning_rate(constant, 100),
    "moved": moved,
    "decayed": float(decayed[0]),
    "averaged": float(averaged[0]),
}))
"""
    found = in_keras(script, tmp_path)
    assert found["rates"] == pytest.approx([0, 0.5, 0.25, 0], abs=1e-6)
    assert found["warmed"] == pytest.approx([0, 0.25, 0.5, 0.5], abs=1e-6)
    assert found["constant"] == 0.5
    assert found["moved"]["sgd"] == pytest.approx([0.5, 4.0])
    assert found["moved"]["adam"] == pytest.approx([0.5, 4.0], rel=1e-4)
    assert found["decayed"] == pytest.approx(1 - 0.1 * 0.5)
    # After two steps of 0.5 from 1: 0.9 of what the first left and 0.1 of what the second did.
    assert found["averaged"] == pytest.approx(0.9 * 0.5 + 0.1 * 0.0)


def test_whitening_decorrelates_patches(tmp_path: Path) -> None:
    script = """
import json
import numpy as np
from stages.architectures import fast94

random = np.random.default_rng(0)
pictures = random.random((100, 8, 8, 3)).cumsum(axis=1).cumsum(axis=2).astype("float32")
pictures = (pictures - pictures.mean((0, 1, 2))) / pictures.std((0, 1, 2))
filters = fast94.whitening_filters(pictures, epsilon=0.0)
patches = np.lib.stride_tricks.sliding_window_view(pictures, (2, 2), axis=(1, 2))
patches = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 12)
found = patches @ filters.reshape(12, 24)
print(json.dumps([filters.shape, (found.T @ found / len(found)).tolist()]))
"""
    shape, covariance = in_keras(script, tmp_path)
    assert shape == [2, 2, 3, 24]
    same = np.eye(12)
    assert np.allclose(covariance, np.block([[same, -same], [-same, same]]), atol=1e-3)


def test_the_finetuned_network_sees_what_the_weights_expect(tmp_path: Path) -> None:
    script = """
import json
import keras, numpy as np
from stages.architectures import resnet50_finetune

keras.utils.set_random_seed(0)
backbone = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3))
backbone.save_weights("backbone.weights.h5")
pictures = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
settings = {"weights": "backbone.weights.h5", "preprocessing": "caffe"}
model = resnet50_finetune.build(**settings, input_size=32)
within = keras.Sequential(model.layers[:-1])(pictures)
prepared = keras.applications.resnet50.preprocess_input(255 * pictures)
expected = keras.ops.reshape(backbone(prepared), (2, -1))
large = resnet50_finetune.build(**settings, input_size=64)
print(json.dumps({
    "same": bool(np.allclose(within, expected, rtol=1e-3, atol=1e-3)),
    "other": bool(np.allclose(within, keras.ops.reshape(backbone(pictures), (2, -1)), atol=0.01)),
    "sums": np.asarray(large(pictures)).sum(axis=1).tolist(),
    "features": list(large.layers[-1].kernel.shape),
}))
"""
    found = in_keras(script, tmp_path)
    assert found["same"]
    assert not found["other"]
    assert found["sums"] == pytest.approx([1, 1], abs=1e-5)
    assert found["features"] == [4 * 2048, 10]


def test_a_stem_for_small_pictures_leaves_more_of_them(tmp_path: Path) -> None:
    script = """
import json
import keras, numpy as np
from stages.architectures import resnet50_scratch

found = []
for stride in (2, 1):
    model = resnet50_scratch.build(stem_stride=stride)
    found.append([model.layers[-2].output.shape, model.count_params(), model.output_shape])
print(json.dumps(found))
"""
    assert in_keras(script, tmp_path) == [
        [[None, 16, 16, 64], 23_600_458, [None, 10]],
        [[None, 32, 32, 64], 23_600_458, [None, 10]],
    ]


def test_every_setting_at_once_resumes_to_the_same_bytes(clone: Repository, tmp_path: Path) -> None:
    (clone.path / "stages/architectures/simple_cnn.py").write_text(NORMALIZED_NETWORK)
    settings = {"weights": "random", **RECIPE}
    clone.set_params(epochs=8, models__simple_cnn=settings)
    train = [sys.executable, "-m", "stages.train", "simple_cnn"]
    clone.check(*train)
    results = training_results("simple_cnn")
    uninterrupted = clone.digests(results)

    for moment in (1, 5):  # while batch normalisation is frozen, and after
        checkpoint = clone.path / f"models/checkpoints/simple_cnn/epoch-{moment:06d}.npz"
        process = clone.start(*train, log=tmp_path / "log")
        wait_until(checkpoint.exists, process, tmp_path / "log")
        process.kill()
        process.wait()
    assert "resuming simple_cnn after epoch" in clone.check(*train)
    assert clone.digests(results) == uninterrupted


def test_batch_normalisation_stays_as_it_starts_while_frozen(clone: Repository) -> None:
    (clone.path / "stages/architectures/simple_cnn.py").write_text(NORMALIZED_NETWORK)
    script = (
        "import json, keras\n"
        "model = keras.models.load_model('models/simple_cnn.keras')\n"
        "print(json.dumps([float(abs(model.layers[1].moving_mean.numpy()).max()),\n"
        "    float(abs(model.layers[1].beta.numpy()).max()),\n"
        "    float(abs(model.layers[0].bias.numpy()).max())]))\n"
    )
    moved = {}
    for frozen in (2, 1):
        settings = {"weights": "random", "learning_rate": 0.1, "frozen_batch_norm_epochs": frozen}
        clone.set_params(epochs=2, models__simple_cnn=settings)
        clone.check(sys.executable, "-m", "stages.train", "simple_cnn")
        moved[frozen] = json.loads(clone.check(sys.executable, "-c", script).splitlines()[-1])
    assert moved[2][:2] == [0, 0]
    assert moved[2][2] > 0
    assert min(moved[1]) > 0


@pytest.mark.parametrize("views", [1, 2, 6])
def test_a_models_file_averages_its_views_without_this_project(
    clone: Repository, tmp_path: Path, views: int
) -> None:
    clone.set_params(models__fast94__views=views)
    clone.check(sys.executable, "-m", "stages.train", "fast94")
    script = f"""
import json
import keras, numpy as np
model = keras.models.load_model({str(clone.path / "models/fast94.keras")!r})
x = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
framed = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
inner = model if {views} == 1 else next(layer for layer in model.layers if layer.name == model.name)
def both(pictures):
    return (inner(pictures) + inner(pictures[:, :, ::-1])) / 2
expected = {{
    1: lambda: inner(x),
    2: lambda: both(x),
    6: lambda: both(x) / 2 + (both(framed[:, :32, :32]) + both(framed[:, 2:, 2:])) / 4,
}}[{views}]()
print(json.dumps([float(abs(model(x) - expected).numpy().max()), model.count_params(),
    type(model.optimizer).__module__, str(model.outputs[0].dtype)]))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    difference, parameters, module, dtype = json.loads(result.stdout.splitlines()[-1])
    assert difference < 1e-6
    assert parameters == 30_730
    assert module.startswith("keras.")
    assert dtype == "float32"
