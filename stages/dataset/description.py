"""What the prepared images show: `data/description.json`, written by the preprocess stage."""

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, ValidationError, model_validator

from stages.common import paths
from stages.common.errors import StageError
from stages.common.params import Strict, describe
from stages.dataset.splits import REMEDY, Split


class Description(Strict):
    """The classes and the images of the data set."""

    classes: Annotated[list[str], Field(min_length=2)]  # in the order of their labels
    images: dict[str, list[NonNegativeInt]]  # of each class, by split: train, validation, test
    duplicates: NonNegativeInt  # test images that are training or validation images as well
    skipped: list[str]  # unreadable files that were left out, and why

    @model_validator(mode="after")
    def check_counts(self) -> Self:
        """Refuse other splits, and other numbers of classes than there are names."""
        splits = [path.name for path in (paths.TRAIN, paths.VALIDATION, paths.TEST)]
        if list(self.images) != splits or any(
            len(counts) != len(self.classes) for counts in self.images.values()
        ):
            raise ValueError(f"not one number per class for each of {', '.join(splits)}")
        return self


def read() -> Description:
    """Read the description; raises `StageError` if it is missing or damaged."""
    try:
        return Description.model_validate_json(paths.DESCRIPTION.read_bytes())
    except (OSError, ValidationError) as error:
        problem = error.strerror if isinstance(error, OSError) else describe(error.errors())[0]
    raise StageError(f"{paths.DESCRIPTION}: {problem}; {REMEDY}")


def read_for(split: Split) -> Description:
    """Read the description; raises `StageError` also if a split has another number of classes."""
    description = read()
    if len(description.classes) != split.classes:
        raise StageError(
            f"{paths.DESCRIPTION}: names {len(description.classes)} classes, but {split.folder} "
            f"has {split.classes}; {REMEDY}"
        )
    return description
