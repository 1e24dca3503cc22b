"""Imports between the packages of `stages` point down, and dvc.yaml lists the code a stage runs."""

import ast
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from tests.params_edits import PARAMS
from tests.repository import ROOT

# The other packages that each package may import; all may import `stages` itself.
ALLOWED_IMPORTS: dict[str, set[str]] = {
    "common": set(),
    "architectures": set(),
    "dataset": {"common"},
    "sources": {"common", "dataset"},
    "training": {"common", "dataset"},
    "reporting": {"common", "dataset"},
    "tools": {"common", "dataset", "sources", "training", "reporting", "architectures"},
}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "stages").rglob("*.py"))
}
SCRIPTS = {name for name, path in FILES.items() if path.parent.name == "stages"} - {"stages"}


def parse(module: str) -> ast.Module:
    """The syntax tree of a module of `stages`."""
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def has_code(module: str) -> bool:
    """Whether a module contains more than its docstring."""
    return not all(isinstance(statement, ast.Expr) for statement in parse(module).body)


def imports(module: str) -> Iterator[str]:
    """The modules of `stages` that a module imports anywhere, including their packages."""
    for node in ast.walk(parse(module)):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            prefixes = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
            yield from (prefix for prefix in prefixes if prefix in FILES)


def all_imports(module: str) -> set[str]:
    """The modules of `stages` that a module imports, directly or through others, and itself."""
    collected: set[str] = set()
    pending = [module]
    while pending:
        current = pending.pop()
        if current not in collected:
            collected.add(current)
            pending += imports(current)
    return collected


def package(module: str) -> str:
    """The package within `stages` that a module is in, or the script's name; "" for `stages`."""
    return module.split(".")[1] if "." in module else ""


def read_stages() -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml, without their loops."""
    stages: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


@pytest.mark.parametrize("module", sorted(set(FILES) - SCRIPTS - {"stages"}))
def test_package_imports_only_packages_below_it(module: str) -> None:
    packages = {package(imported) for imported in imports(module)} - {"", package(module)}
    assert packages <= ALLOWED_IMPORTS[package(module)]


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_stage_imports_no_other_stage_and_no_tool(script: str) -> None:
    packages = {package(imported) for imported in imports(script)} - {""}
    assert packages <= set(ALLOWED_IMPORTS) - {"tools", "architectures"}


def test_package_init_files_have_no_code() -> None:
    assert not [name for name in ALLOWED_IMPORTS if has_code(f"stages.{name}")]


def test_scripts_are_the_stages_of_dvc_yaml() -> None:
    commands = {name: stage["cmd"].split()[:3] for name, stage in read_stages().items()}
    assert commands == {name: ["python", "-m", f"stages.{name}"] for name in commands}
    assert {f"stages.{name}" for name in commands} == SCRIPTS


@pytest.mark.parametrize("stage", read_stages())
def test_dvc_tracks_all_code_that_a_stage_imports(stage: str) -> None:
    deps = [ROOT / dep for dep in read_stages()[stage]["deps"] if dep.startswith("stages")]
    modules = {module for module in all_imports(f"stages.{stage}") if has_code(module)}
    # `stages` itself sets what TensorFlow reads, which fetch_weights does not compute with.
    if "stages.common.quiet_keras" not in modules or stage == "fetch_weights":
        modules.remove("stages")
    untracked = {
        module
        for module in modules
        if package(module) != "common"
        and not any(FILES[module].is_relative_to(dep) for dep in deps)
    }
    assert untracked == set()


def test_settings_tracks_the_code_that_decides_what_it_writes() -> None:
    deps = read_stages()["settings"]["deps"]
    assert {"stages/common/params.py", "stages/common/stage_settings.py"} <= {*deps}


def test_train_tracks_the_architecture_of_its_model() -> None:
    assert "stages/architectures/${item.architecture}.py" in read_stages()["train"]["deps"]


def test_every_architecture_is_that_of_a_model_and_every_model_is_in_the_registry() -> None:
    architectures = {entry["architecture"] for entry in PARAMS["models"].values()}
    files = {path.stem for path in (ROOT / "stages/architectures").glob("*.py")} - {"__init__"}
    assert architectures == files
    registry = yaml.safe_load((ROOT / "dvc.yaml").read_text())["artifacts"].values()
    assert {x["path"] for x in registry} == {f"models/{name}.keras" for name in PARAMS["models"]}


def test_dvc_sees_the_dvc_files_of_own_images_in_data(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    shutil.copyfile(ROOT / ".gitignore", tmp_path / ".gitignore")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/flowers.dvc").write_text("outs:\n- path: flowers\n")
    with Repo(str(tmp_path)) as repo:
        assert [stage.path_in_repo for stage in repo.index.stages] == ["data/flowers.dvc"]
