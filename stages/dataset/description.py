"""What the prepared images show: `data/description.json`, written by the preprocess stage."""

from pydantic import NonNegativeInt

from stages.common import paths
from stages.common.console import counted
from stages.common.errors import reading
from stages.common.params import Strict


class Description(Strict):
    """The classes and the images of the data set."""

    classes: list[str]  # in the order of their labels
    images: dict[str, list[NonNegativeInt]]  # of each class, by split: train, validation, test
    duplicates: list[str]  # test images that are training or validation images as well, and which
    contradictions: list[str]  # images that are also in another class, and which
    skipped: list[str]  # unreadable files that were left out, and why
    left_out: dict[str, NonNegativeInt]  # files without an image's suffix, by suffix

    @property
    def same_images(self) -> dict[str, list[str]]:
        """Notices about equal images, and which these are; empty without any."""
        tested = sum(self.images["test"])
        duplicates = (
            f"{len(self.duplicates):,} of the {tested:,} test images are training or validation "
            "images as well: their accuracy is not that of unseen images."
        )
        count = len(self.contradictions)
        contradictions = (
            f"{counted(count, 'image')} {'are' if count > 1 else 'is'} in another class as well: "
            "no model can get both right."
        )
        notices = {duplicates: self.duplicates, contradictions: self.contradictions}
        return {notice: files for notice, files in notices.items() if files}

    @property
    def skipped_notice(self) -> str:
        """How many files were left out; empty if none was."""
        count = len(self.skipped)
        if not count:
            return ""
        return f"{counted(count, 'unreadable file')} {'were' if count > 1 else 'was'} left out"


def read() -> Description:
    """Read the description; raises `StageError` if it is damaged."""
    with reading(paths.DESCRIPTION):
        return Description.model_validate_json(paths.DESCRIPTION.read_bytes())
