"""The comparison's tables and numbers: what is in them depends on classes, images and software."""

import pytest

from stages import compare
from stages.common import params
from stages.reporting import tables
from tests.params_edits import edited
from tests.reporting.results import description, model_result

SETTINGS = params.load()


@pytest.mark.parametrize(
    ("count", "top_k"), [(2, []), (3, ["top 2"]), (20, ["top 2"]), (21, ["top 5"])]
)
def test_top_k_accuracy_fits_the_number_of_classes(count: int, top_k: list[str]) -> None:
    result = model_result("cnn", 10 * count, [f"class {number}" for number in range(count)])
    (row,) = tables.models([result], SETTINGS)
    assert [heading for heading in row if heading.startswith("top")] == top_k
    numbers = compare.numbers([result], {})["models"]["cnn"]
    keys = [key for key in numbers if key.startswith("top")]
    assert keys == [f"{heading.replace(' ', '')}_accuracy" for heading in top_k]


def test_balanced_accuracy_is_a_column_where_classes_are_unequal() -> None:
    for counts, shown in [((10, 15), False), ((10, 16), True)]:
        result = model_result("cnn", classes=["cat", "dog"], counts=counts)
        rows = tables.models([result], SETTINGS)
        assert ("balanced accuracy" in rows[0]) == shown
        assert len(rows) == 1 + shown  # the last one is that of the largest class
        numbers = compare.numbers([result], {})["models"]["cnn"]
        assert numbers["balanced_accuracy"] == pytest.approx(result.class_accuracies.mean())
        for name, accuracy in numbers["class_accuracies"].items():
            low, high = numbers["class_intervals"][name]
            assert low <= accuracy <= high


def test_software_of_models_evaluated_with_different_packages_is_in_its_columns() -> None:
    software = [{"keras": "3", "tensorflow": "2"}, {"keras": "3", "jax": "0"}]
    first, second = tables.provenance([model_result("cnn", software=x) for x in software])
    assert (first["tensorflow"], first["jax"]) == ("2", "")
    assert (second["tensorflow"], second["jax"]) == ("", "0")


def test_table_of_parameters_has_batch_size_and_epochs_as_fitted_to_the_images() -> None:
    length = ("training.min_batches=20", "training.min_batch_size=16", "training.min_steps=400")
    settings = params.Params.model_validate(edited("epochs=15", "batch_size=128", *length))
    result = model_result("cnn", images=40)
    for images, expected in ((40, ("16", "134")), (4000, ("", ""))):
        counts = {"images": dict.fromkeys(["train", "validation", "test"], [images // 10] * 10)}
        rows = tables.model_params(settings, description(result, **counts))
        by_name = {row["parameter"]: row["simple_cnn"] for row in rows}
        assert tuple(str(by_name[key]) for key in ("batch_size", "epochs")) == expected
