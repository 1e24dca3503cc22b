"""The networks: one file per row of the comparison, each with a function `build`.

Its keyword arguments are the model's entry in params.yaml, checked against its type hints.
"""
