"""Check params.yaml, and write what each stage uses of it.

Reads params.yaml and, with `dataset: folder`, the names in the folder of images, so that a wrong
path shows before anything is downloaded. Writes data/settings/: fetch.json, fetch_weights.json,
preprocess.json and train/MODEL.json. The stages depend on these files, so that a parameter concerns
only those that use it.
"""

from pathlib import Path

from stages.common import command_line, params, paths, stage_settings
from stages.common.atomic import atomic_write, write_json
from stages.common.console import print_inputs, print_outputs
from stages.common.process import RunningStage
from stages.sources import folder_layout


def main() -> None:
    stage = RunningStage("settings")
    print_inputs(paths.PARAMS)
    settings = params.load()
    folder = Path(settings.folder.path)
    tracked = folder.with_name(f"{folder.name}.dvc").exists()  # DVC brings it before `fetch`
    if settings.dataset == "folder" and (folder.exists() or not tracked):
        folder_layout.find(settings.folder)
    used = stage_settings.used_by_stages(settings.model_dump())
    with atomic_write(paths.SETTINGS) as target:
        for name, values in used.items():
            write_json(target / f"{name}.json", values)
        stage.check_inputs()
    print_outputs(paths.SETTINGS)


if __name__ == "__main__":
    command_line.run_stage(main, "stages.settings", __doc__)
