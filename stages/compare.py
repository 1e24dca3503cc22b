"""Compare the models.

Reads data/evaluations/, metrics/curves/, metrics/provenance/ (for training times), data/test/,
data/files.csv, data/description.json and params.yaml.
Writes the comparison's numbers to data/comparison.json, and to metrics/: report.html, the whole
comparison as a page; report.md, a summary; images.csv, every image with its predictions;
learning_curves.csv, for DVC's plots; comparison.png, accuracy_by_minutes.png, learning_curves.png
and confusion_matrices.png.
"""

import csv
from collections.abc import Iterator, Sequence
from typing import Any

from stages.common import command_line, paths, stage_settings
from stages.common.atomic import atomic_write, write_csv, write_json
from stages.common.console import print_inputs, print_outputs
from stages.common.errors import reading
from stages.common.process import RunningStage
from stages.dataset import description
from stages.dataset.splits import Split
from stages.reporting import charts, model_results, page, summary, tables
from stages.reporting.model_results import ModelResult


def numbers(results: Sequence[ModelResult], pairs: tables.Pairs) -> dict[str, Any]:
    """The comparison's numbers."""
    return {
        "models": {
            result.name: {
                "accuracy": result.accuracy,
                "interval": result.interval,
                "balanced_accuracy": result.balanced_accuracy,
                "failure": result.failure,
                **{f"top{k}_accuracy": value for k, value in result.top_k_accuracy.items()},
                "loss": result.loss,
                "calibration_error": result.reliability.expected_calibration_error,
                "parameters": result.parameters,
                "class_accuracies": dict(zip(result.classes, result.class_accuracies, strict=True)),
                "class_intervals": dict(zip(result.classes, result.class_intervals, strict=True)),
                "confusion_matrix": result.confusion_matrix.tolist(),
            }
            for result in results
        },
        "pairs": [
            {"first": first, "second": second, **pair._asdict()}
            for (first, second), pair in pairs.items()
        ],
    }


def learning_curves(results: Sequence[ModelResult]) -> Iterator[tuple[str, str, int, float, float]]:
    """All learning curves as rows of (model, split, epoch, accuracy, loss)."""
    for result in results:
        for prefix, split in (("train", "training"), ("val", "validation")):
            accuracies, losses = (result.curves[f"{prefix}_{x}"] for x in ("accuracy", "loss"))
            for epoch, values in enumerate(zip(accuracies, losses, strict=True), start=1):
                yield result.name, split, epoch, *values


def read_files(test_images: int) -> list[dict[str, str]]:
    """The rows of data/files.csv; raises `StageError` if it is damaged."""
    with reading(paths.FILES), paths.FILES.open(newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
        if sum(row["split"] == paths.TEST.name for row in rows) != test_images:
            raise ValueError(f"not {test_images:,} test images")
    return rows


def predictions(
    results: Sequence[ModelResult], files: Sequence[dict[str, str]]
) -> Iterator[list[str]]:
    """Every image with its split, class and file; a test image with each model's prediction."""
    test = iter(range(len(results[0].labels)))
    for row in files:
        predicted = [""] * (2 * len(results))
        if row["split"] == paths.TEST.name:
            index = next(test)
            predicted = [
                text
                for result in results
                for text in (
                    result.classes[result.predicted[index]],
                    f"{result.probabilities[index].max():.4f}",
                )
            ]
        yield [*row.values(), *predicted]


def main() -> None:
    stage = RunningStage("compare")
    settings = stage_settings.load()
    inputs = paths.EVALUATIONS, paths.CURVES, paths.PROVENANCE, paths.TEST, paths.DESCRIPTION
    print_inputs(*inputs, paths.FILES)
    test, data = Split(paths.TEST), description.read()
    labels = test.labels.astype(int)
    files = read_files(test.count)
    results = [model_results.read(name, labels) for name in settings.models]
    if results[0].unequal_classes:
        results.sort(key=lambda result: -result.score)
    pairs = summary.compare_pairs(results)

    # Everything is computed before anything is written.
    report = summary.markdown(results, pairs, settings, data)
    test_files = [row["file"] for row in files if row["split"] == paths.TEST.name]
    html = page.html(results, pairs, settings, data, test, test_files)
    texts = {paths.REPORT_HTML: html, paths.REPORT_MD: report}
    comparison, curves = numbers(results, pairs), [*learning_curves(results)]
    images = [*predictions(results, files)]
    columns = [name for result in results for name in (result.name, f"{result.name} probability")]
    figures = {
        paths.COMPARISON_PNG: charts.accuracies(results, settings.notebook),
        paths.ACCURACY_BY_MINUTES_PNG: charts.accuracy_by_minutes(results),
        paths.LEARNING_CURVES_PNG: charts.learning_curves(results, rows=1, columns=2),
        paths.CONFUSION_MATRICES_PNG: charts.confusion_matrices(results),
    }
    stage.check_inputs()
    for path, text in texts.items():
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")
    write_json(paths.COMPARISON_JSON, comparison)
    write_csv(paths.LEARNING_CURVES_CSV, ["model", "split", "epoch", "accuracy", "loss"], curves)
    write_csv(paths.IMAGES_CSV, [*files[0], *columns], images)
    for path, figure in figures.items():
        charts.save_png(figure, path)
    print(f"\n{report}")
    print_outputs(
        *texts, paths.IMAGES_CSV, paths.COMPARISON_JSON, paths.LEARNING_CURVES_CSV, *figures
    )


if __name__ == "__main__":
    command_line.run_stage(main, "stages.compare", __doc__)
