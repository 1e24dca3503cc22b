"""Test-time augmentation, as part of the model file."""

from typing import Any

from stages.common.quiet_keras import keras


def average_views(model: keras.Model, views: int) -> keras.Model:
    """The model with its probabilities averaged over several views of each image.

    1 view is the model itself, 2 are the image and its mirror image. 6 are these two with a weight
    of a half, and with a weight of a quarter each the same two shifted by one pixel to the upper
    left and to the lower right (Jordan 2024, arXiv 2404.00498, section 3.5).
    """
    if views == 1:
        return model
    mean = keras.layers.Average(dtype="float32")
    network = keras.Model(
        model.inputs[0], model.outputs[0], name=model.name
    )  # without the optimizer

    def with_mirror_image(x: Any) -> list[Any]:
        return [network(x), network(keras.ops.flip(x, axis=2))]

    images = keras.Input(model.input_shape[1:])
    probabilities = mean(with_mirror_image(images))
    if views == 6:
        _, height, width, _ = model.input_shape
        padded = keras.ops.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="reflect")
        shifted = [
            *with_mirror_image(padded[:, :height, :width]),
            *with_mirror_image(padded[:, 2:, 2:]),
        ]
        probabilities = mean([probabilities, mean(shifted)])
    return keras.Model(images, probabilities, name=model.name)
