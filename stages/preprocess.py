"""Convert the images of the data set to memory-mappable arrays.

Reads data/settings/preprocess.json, data/source.json, and the download or the folder that it names.
Writes data/{train,validation,test}/, each with `x.npy`, images (N, H, W, 3) uint8, and `y.npy`,
labels (N,) uint16; data/files.csv, the name of each image, in the same order; and
data/description.json with the classes, the number of their images and what is wrong with some.
"""

import hashlib
import json
import math
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from stages.common import command_line, params, paths, stage_settings
from stages.common.atomic import atomic_write, write_csv, write_json
from stages.common.console import first_few, print_inputs, print_outputs
from stages.common.errors import StageError, reading
from stages.common.process import RunningStage
from stages.dataset.description import Description
from stages.dataset.splits import SplitWriter
from stages.sources import cifar, download, folder, generated
from stages.sources.images import Images

Ranges = dict[Path, tuple[int, int]]  # first row and last row + 1 of each split
FileRow = tuple[str, str, str, str]  # split, class, file, and the file of an equal image before it


def open_images(settings: params.Params) -> Images:
    """The images that the fetch stage found."""
    with reading(paths.SOURCE):
        source = json.loads(paths.SOURCE.read_text(encoding="utf-8"))
    if source["dataset"] != settings.dataset:
        raise StageError(f"{paths.SOURCE}: of another data set; run `dvc repro`")
    match settings.dataset:
        case "sample":
            return generated.generate(settings.sample.images_per_file, settings.sample.seed)
        case "folder":
            print_inputs(source["path"])
            return folder.read(source, settings.folder)
        case data_set:
            (file,) = (x for x in cifar.SOURCES[data_set] if x.known_hash == source["hash"])
            _, path = download.first_available(cifar.TITLES[data_set], [file])
            print_inputs(path)
            return cifar.read(file, path)


def split_ranges(images: Images, validation_split: float) -> Ranges:
    """Each split's rows of the images, test images last.

    Validation gets the last part of the training images, rounded as in `Model.fit`.
    """
    train = math.floor(images.train_count * (1 - validation_split))
    if not 0 < train < images.train_count:
        raise StageError(
            f"params.yaml: validation_split: {validation_split}: of {images.train_count} images "
            "leaves none for training or for validation; change it"
        )
    return {
        paths.TRAIN: (0, train),
        paths.VALIDATION: (train, images.train_count),
        paths.TEST: (images.train_count, images.train_count + images.test_count),
    }


def image_checksums(images: np.ndarray) -> np.ndarray:
    """A checksum of each of the images (n, H, W, 3): (n,) uint64."""
    digests = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images]
    return np.frombuffer(b"".join(digests), np.uint64)


def describe(
    images: Images, ranges: Ranges, rows: np.ndarray, labels: np.ndarray
) -> list[tuple[str, str, str]]:
    """Split, class and file of images with these rows and labels, (N,) integers each."""
    names, starts = [split.name for split in ranges], [first for first, _ in ranges.values()]
    splits = np.searchsorted(starts, rows, side="right") - 1
    return [
        (names[split], images.classes[label], images.files[row])
        for split, label, row in zip(splits, labels, rows, strict=True)
    ]


def first_equal(checksums: np.ndarray) -> np.ndarray:
    """The index of the first image with the same checksum, (N,) of (N,)."""
    _, first, numbers = np.unique(checksums, return_index=True, return_inverse=True)
    indices: np.ndarray = first[numbers]
    return indices


def write(
    images: Images, ranges: Ranges, folders: dict[Path, Path]
) -> tuple[Description, list[FileRow]]:
    """Write each split to its folder, batch by batch."""
    writers = {split: SplitWriter(folders[split], images.size) for split in ranges}
    rows, labels, checksums, skipped = [], [], [], []
    for batch in images.batches:
        rows.append(batch.rows)
        labels.append(batch.labels)
        checksums.append(image_checksums(batch.images))
        skipped += batch.skipped
        for split, (first, last) in ranges.items():
            selected = (first <= batch.rows) & (batch.rows < last)
            writers[split].append(batch.images[selected], batch.labels[selected])
    for writer in writers.values():
        writer.close()
    described = describe(images, ranges, np.concatenate(rows), np.concatenate(labels))
    originals = first_equal(np.concatenate(checksums))
    equal = [(described[i], described[j]) for i, j in enumerate(originals) if j < i]
    files = [(*described[i], described[j][2] if j < i else "") for i, j in enumerate(originals)]
    return Description(
        classes=images.classes,
        images={
            split.name: np.bincount(writer.labels, minlength=len(images.classes)).tolist()
            for split, writer in writers.items()
        },
        duplicates=[
            f"{file} = {other_file} ({other_split})"
            for (split, _, file), (other_split, _, other_file) in equal
            if split == paths.TEST.name != other_split
        ],
        contradictions=[
            f"{file} ({label}) = {other_file} ({other_label})"
            for (_, label, file), (_, other_label, other_file) in equal
            if label != other_label
        ],
        skipped=skipped,
        left_out=images.left_out,
    ), files


def check_remaining(description: Description, ranges: Ranges) -> None:
    """Raise `StageError` if a split has no images, or a class none to train with or to test.

    A source has all classes in both, but `validation_split` or unreadable images may leave none.
    """
    for split in ranges:
        counts = zip(description.classes, description.images[split.name], strict=True)
        missing = [name for name, count in counts if count == 0]
        if missing and (split != paths.VALIDATION or len(missing) == len(description.classes)):
            raise StageError(
                f"{split}: has no readable image of {first_few(missing)}; add some, or change "
                "validation_split"
            )


def print_description(description: Description, size: int) -> None:
    """Print what a reader of the results should know about the images."""
    for split, counts in description.images.items():
        print(f"{split}: {sum(counts):,} images of {size} x {size} pixels")
    if notice := description.skipped_notice:
        print(f"NOTICE: {notice}: {first_few(description.skipped)}")
    for notice, files in description.same_images.items():
        print(f"NOTICE: {notice} {first_few(files)}")


def main() -> None:
    stage = RunningStage("preprocess")
    settings = stage_settings.load("preprocess")
    images = open_images(settings)
    ranges = split_ranges(images, settings.validation_split)
    with ExitStack() as stack:
        folders = {split: stack.enter_context(atomic_write(split)) for split in ranges}
        description, files = write(images, ranges, folders)
        check_remaining(description, ranges)
        stage.check_inputs()
        write_csv(paths.FILES, ["split", "class", "file", "same as"], files)
        write_json(paths.DESCRIPTION, description.model_dump())
    print_description(description, images.size)
    print_outputs(*ranges, paths.FILES, paths.DESCRIPTION)


if __name__ == "__main__":
    command_line.run_stage(main, "stages.preprocess", __doc__)
