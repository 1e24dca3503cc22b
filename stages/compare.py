"""Compare the models.

Reads data/evaluations/, metrics/curves/, metrics/timings/ and data/test/. Writes to metrics/:
report.html, the whole comparison as a page; report.md, the same in short; comparison.json, its
numbers; comparison.png, accuracy_by_minutes.png, learning_curves.png and confusion_matrices.png.
"""

from typing import Any

from stages.support import charts, params, paths, report, results
from stages.support.archive import CLASSES
from stages.support.arrays import Split
from stages.support.errors import one_line_errors
from stages.support.files import only_one, replacing, say_reading, say_wrote, write_json


def summary(compared: list[results.Result]) -> dict[str, Any]:
    """The comparison's numbers."""
    return {
        "models": {
            result.name: {
                "accuracy": result.accuracy,
                "interval": result.interval,
                "top2_accuracy": result.top2_accuracy,
                "loss": result.loss,
                "calibration_error": result.reliability.expected_calibration_error,
                "parameters": result.parameters,
                "class_accuracies": dict(zip(CLASSES, result.class_accuracies, strict=True)),
                "confusion_matrix": result.confusion_matrix.tolist(),
            }
            for result in compared
        },
        "pairs": [
            {"first": first, "second": second, **pair._asdict()}
            for (first, second), pair in report.compare_pairs(compared).items()
        ],
    }


@one_line_errors
def main() -> None:
    settings = params.load()
    only_one("compare")
    say_reading(paths.EVALUATIONS, paths.CURVES, paths.TIMINGS, paths.TEST)
    test = Split(paths.TEST)
    compared = [results.read(name, test.labels()) for name in settings.models]

    texts = {
        paths.REPORT_HTML: report.html(compared, settings, test),
        paths.REPORT_MD: report.markdown(compared, settings),
    }
    for path, text in texts.items():
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    write_json(paths.COMPARISON_JSON, summary(compared))
    pictures = {
        paths.COMPARISON_PNG: charts.accuracies(compared, settings.notebook),
        paths.MINUTES_PNG: charts.accuracy_by_minutes(compared),
        paths.CURVES_PNG: charts.learning_curves(compared, rows=1, columns=2),
        paths.CONFUSION_PNG: charts.confusion_matrices(compared),
    }
    for path, figure in pictures.items():
        charts.save_png(figure, path)
    print(f"\n{texts[paths.REPORT_MD]}")
    say_wrote(*texts, paths.COMPARISON_JSON, *pictures)


if __name__ == "__main__":
    main()
