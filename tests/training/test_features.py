"""A frozen first layer runs once for each image, and the layers after it are trained as ever."""

from pathlib import Path

import numpy as np
import pytest

from stages.common.quiet_keras import keras
from stages.dataset.batch_loader import BatchLoader
from stages.dataset.splits import Split, SplitWriter, scale
from stages.training import features

layers = keras.layers
COUNT, CLASSES = 20, 3
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), np.uint8)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """A split of noise."""
    writer = SplitWriter(tmp_path / "split", 8)
    writer.append(IMAGES, np.arange(COUNT) % CLASSES)
    writer.close()
    return Split(tmp_path / "split")


def backbone(trainable: bool = False) -> keras.Model:
    """A convolution with batch normalization as a model, frozen or not."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
        ]
    )
    model.trainable = trainable
    return model


def test_training_on_computed_features_trains_the_model_they_belong_to(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BATCH_SIZE", 7)
    frozen = backbone()
    model = keras.Sequential([frozen, layers.Dropout(0.5), layers.Dense(CLASSES)])
    divided = features.divide(model)
    assert divided is not None
    assert divided[0] is frozen
    head = divided[1]

    outputs = features.compute(frozen, split, tmp_path / "checkpoints/features")
    computed = outputs.images(np.arange(COUNT))
    assert computed.dtype == np.float32
    assert computed == pytest.approx(np.asarray(frozen(scale(IMAGES))), abs=1e-5)
    assert np.array_equal(outputs.labels, split.labels)

    untrained = np.asarray(model(scale(IMAGES)))
    head.compile("adam", "mse")
    head.fit(BatchLoader(outputs, CLASSES, 7).as_dataset(), verbose=0)
    trained = np.asarray(model(scale(IMAGES)))
    assert not np.allclose(trained, untrained, atol=1e-4)
    assert trained == pytest.approx(np.asarray(head(computed)), abs=1e-5)


def test_completed_features_are_not_computed_again(split: Split, tmp_path: Path) -> None:
    # Two random models, so that computing them again would show.
    computed = [features.compute(backbone(), split, tmp_path / "features") for _ in range(2)]
    first, second = (outputs.images(np.arange(COUNT)) for outputs in computed)
    assert np.array_equal(first, second)


def test_model_is_divided_only_after_a_frozen_model_that_is_its_first_layer() -> None:
    frozen_layer = layers.Dense(3, trainable=False)
    for model_layers in (
        [backbone(trainable=True), layers.Dense(CLASSES)],
        [keras.Input((4,)), frozen_layer, layers.Dense(CLASSES)],
        [keras.Input((8, 8, 3)), layers.Rescaling(2.0), backbone(), layers.Dense(CLASSES)],
        [backbone()],
    ):
        assert features.divide(keras.Sequential(model_layers)) is None
