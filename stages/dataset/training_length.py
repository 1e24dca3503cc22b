"""How a small data set is trained on: in smaller batches, and for more epochs."""

import math

from stages.common.params import ModelParams


def fit_to(settings: ModelParams, images: int) -> ModelParams:
    """A model's settings with the batch size and the epochs for so many training images.

    They are those of params.yaml where an epoch has at least `min_batches` batches. Otherwise an
    epoch gets that many, if their size is at least `min_batch_size`, and training at least
    `min_steps` steps; the epochs with frozen batch normalization grow in proportion.
    """
    if images >= settings.min_batches * settings.batch_size:
        return settings
    smaller = max(settings.min_batch_size, images // settings.min_batches)
    batch_size = min(settings.batch_size, smaller)
    epochs = max(settings.epochs, math.ceil(settings.min_steps / math.ceil(images / batch_size)))
    frozen = round(settings.frozen_batch_norm_epochs * epochs / settings.epochs)
    changed = {"batch_size": batch_size, "epochs": epochs, "frozen_batch_norm_epochs": frozen}
    return settings.model_copy(update=changed)


def steps(settings: ModelParams, images: int) -> int:
    """The steps of a training run on so many images, with these settings as they are."""
    return settings.epochs * math.ceil(images / settings.batch_size)


def recomputes_batch_norm(settings: ModelParams, images: int) -> bool:
    """Whether batch normalization's averages are computed anew after such a training run."""
    frozen_throughout = settings.frozen_batch_norm_epochs >= settings.epochs
    return steps(settings, images) < settings.recompute_batch_norm_below and not frozen_throughout
