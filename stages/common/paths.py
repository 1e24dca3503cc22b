"""Every path of the pipeline, relative to the repository's root, where DVC runs the stages."""

from pathlib import Path

PARAMS = Path("params.yaml")
ARCHITECTURES = Path("stages/architectures")

DOWNLOADS = Path("data/downloads")
ARCHIVES = Path("data/archives")  # one folder per data set
IMAGENET_WEIGHTS = Path("data/weights/imagenet/resnet50_notop.weights.h5")
TRAIN = Path("data/train")
VALIDATION = Path("data/validation")
TEST = Path("data/test")
DESCRIPTION = Path("data/description.json")
EVALUATIONS = Path("data/evaluations")

MODELS = Path("models")
CHECKPOINTS = MODELS / "checkpoints"

STAGE_LOCKS = Path(".dvc/tmp/stages")  # DVC keeps .dvc/tmp out of Git
MATPLOTLIB = Path(".dvc/tmp/matplotlib")

METRICS = Path("metrics")
CURVES = METRICS / "curves"
TIMINGS = METRICS / "timings"
PROVENANCE = METRICS / "provenance"
DATA_PROVENANCE = PROVENANCE / "data.json"
PREDICTIONS = METRICS / "predictions"
CLASS_ACCURACIES = METRICS / "classes"
REPORT_HTML = METRICS / "report.html"
REPORT_MD = METRICS / "report.md"
COMPARISON_JSON = Path("data/comparison.json")
COMPARISON_PNG = METRICS / "comparison.png"
TRAINING_TIME_PNG = METRICS / "accuracy_by_minutes.png"
LEARNING_CURVES_CSV = METRICS / "learning_curves.csv"
LEARNING_CURVES_PNG = METRICS / "learning_curves.png"
CONFUSION_PNG = METRICS / "confusion_matrices.png"
