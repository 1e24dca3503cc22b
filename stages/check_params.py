"""Check params.yaml, before any other stage runs.

Reads params.yaml and which files stages/architectures/ has. Writes nothing.
"""

from stages.common import command_line, params, paths
from stages.common.console import print_inputs
from stages.common.errors import one_line_errors


@one_line_errors
def main() -> None:
    print_inputs(paths.PARAMS)
    params.load()


if __name__ == "__main__":
    command_line.no_arguments("stages.check_params", __doc__)
    main()
