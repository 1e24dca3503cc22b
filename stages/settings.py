"""Check params.yaml, and write what each stage uses of it.

Reads params.yaml. Writes data/settings/: fetch.json, fetch_weights.json, preprocess.json and
train/MODEL.json. The stages depend on these files, so that a parameter concerns only those that use
it.
"""

from stages.common import command_line, params, paths, stage_settings
from stages.common.atomic import atomic_write, write_json
from stages.common.console import print_inputs, print_outputs


def main() -> None:
    print_inputs(paths.PARAMS)
    used = stage_settings.used_by_stages(params.load().model_dump())
    with atomic_write(paths.SETTINGS) as folder:
        for stage, settings in used.items():
            write_json(folder / f"{stage}.json", settings)
    print_outputs(paths.SETTINGS)


if __name__ == "__main__":
    command_line.run_stage(main, "stages.settings", __doc__)
