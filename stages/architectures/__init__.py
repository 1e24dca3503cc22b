"""The networks: one file per row of the comparison, each with one function `build`."""
