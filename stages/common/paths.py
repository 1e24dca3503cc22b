"""Every path of the pipeline, relative to the repository's root, where DVC runs the stages."""

from pathlib import Path

DVC_YAML = Path("dvc.yaml")
PARAMS = Path("params.yaml")
CODE = Path("stages")
ARCHITECTURES = Path("stages/architectures")

SETTINGS = Path("data/settings")  # what each stage uses of params.yaml
DOWNLOADS = Path("data/downloads")
SOURCE = Path("data/source.json")
IMAGENET_WEIGHTS = Path("data/weights/imagenet/resnet50_notop.weights.h5")
TRAIN = Path("data/train")
VALIDATION = Path("data/validation")
TEST = Path("data/test")
DESCRIPTION = Path("data/description.json")
FILES = Path("data/files.csv")  # of the prepared images
EVALUATIONS = Path("data/evaluations")

MODELS = Path("models")
CHECKPOINTS = MODELS / "checkpoints"

STAGE_LOCKS = Path(".dvc/tmp/stages")  # DVC keeps .dvc/tmp out of Git

METRICS = Path("metrics")
CURVES = METRICS / "curves"
PROVENANCE = METRICS / "provenance"
PREDICTIONS = METRICS / "predictions"
CLASS_ACCURACIES = METRICS / "classes"
REPORT_HTML = METRICS / "report.html"
REPORT_MD = METRICS / "report.md"
IMAGES_CSV = METRICS / "images.csv"
COMPARISON_JSON = Path("data/comparison.json")
COMPARISON_PNG = METRICS / "comparison.png"
ACCURACY_BY_MINUTES_PNG = METRICS / "accuracy_by_minutes.png"
LEARNING_CURVES_CSV = METRICS / "learning_curves.csv"
LEARNING_CURVES_PNG = METRICS / "learning_curves.png"
CONFUSION_MATRICES_PNG = METRICS / "confusion_matrices.png"
