"""Markdown: tables, and texts that are shown as they are."""

import re
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from stages.common.console import printable


def escape(text: str) -> str:
    """Markdown that shows `text` as it is; one line.

    An underscore within a word means nothing, and stays as it is in a terminal.
    """
    return re.sub(r"[\\`*<>#&~$\[\]]|(?<!\w)_|_(?!\w)", r"\\\g<0>", printable(text))


def markdown_table(rows: Sequence[Mapping[str, str]], text_columns: int = 1) -> str:
    """A Markdown table with the keys of `rows` as headings.

    The first `text_columns` columns are aligned to the left, the others to the right.
    """
    cells = [{key: value.replace("|", r"\|") for key, value in row.items()} for row in rows]
    alignment = ["left" if column < text_columns else "right" for column in range(len(rows[0]))]
    return tabulate(
        cells, headers="keys", tablefmt="pipe", colalign=alignment, disable_numparse=True
    )
