"""Markdown tables."""

from collections.abc import Mapping, Sequence

from tabulate import tabulate


def markdown_table(rows: Sequence[Mapping[str, str]], text_columns: int = 1) -> str:
    """A Markdown table with the keys of `rows` as headings.

    The first `text_columns` columns are aligned to the left, the others to the right.
    """
    cells = [{key: value.replace("|", r"\|") for key, value in row.items()} for row in rows]
    alignment = ["left" if column < text_columns else "right" for column in range(len(rows[0]))]
    return tabulate(
        cells, headers="keys", tablefmt="pipe", colalign=alignment, disable_numparse=True
    )
