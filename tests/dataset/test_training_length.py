"""CIFAR-10 is trained on as params.yaml says, few images in smaller batches and for more epochs."""

from stages.common.params import Params
from stages.dataset.splits import validation_count
from stages.dataset.training_length import fit_to, recomputes_batch_norm, steps
from tests.params_edits import PARAMS, edited_model

FEW = 302


def length(name: str, images: int, *edits: str) -> tuple[int, int, int]:
    """Batch size, epochs and epochs with frozen batch normalization for so many images."""
    fitted = fit_to(edited_model(name, *edits), images)
    return fitted.batch_size, fitted.epochs, fitted.frozen_batch_norm_epochs


def test_cifar10_is_trained_on_with_the_settings_of_every_entry() -> None:
    settings = Params.model_validate(PARAMS)
    for model in settings.models.values():
        images = 50_000 - validation_count(5_000, model)
        assert images == (49_500 if model.validation_share == 0.1 else 45_000)
        assert fit_to(model, images) == model
        assert not recomputes_batch_norm(model, images)


def test_few_images_get_smaller_batches_and_more_epochs() -> None:
    for images, expected in {
        2560: (128, 15, 0),  # 20 batches
        2559: (127, 20, 0),
        1000: (50, 20, 0),
        FEW: (16, 22, 0),
        10: (16, 400, 0),
    }.items():
        assert length("simple_cnn", images) == expected
    assert length("simple_cnn", FEW, "training.min_steps=1") == (16, 15, 0)
    assert length("simple_cnn", FEW, "batch_size=8", "training.min_batches=50") == (8, 15, 0)
    assert steps(fit_to(edited_model("simple_cnn"), FEW), FEW) == 418


def test_epochs_with_frozen_batch_normalization_grow_in_proportion() -> None:
    assert length("resnet50_tuned", FEW) == (16, 22, 22)
    edit = "models.resnet50_tuned.frozen_batch_norm_epochs=2"
    assert length("resnet50_tuned", FEW, edit) == (16, 22, 11)


def test_min_batches_0_leaves_batch_size_and_epochs_as_they_are() -> None:
    assert length("simple_cnn", 1, "training.min_batches=0") == (128, 15, 0)


def test_batch_normalization_is_recomputed_after_few_steps_unless_frozen_throughout() -> None:
    for edits, expected in (
        ((), True),
        (("recompute_batch_norm_below=419",), True),
        (("recompute_batch_norm_below=418",), False),
        (("frozen_batch_norm_epochs=14",), True),
        (("frozen_batch_norm_epochs=15",), False),
    ):
        model = edited_model("resnet50_scratch", *(f"models.resnet50_scratch.{x}" for x in edits))
        assert recomputes_batch_norm(fit_to(model, FEW), FEW) is expected
