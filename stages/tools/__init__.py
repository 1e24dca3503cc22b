"""Commands for people, outside the pipeline: `python -m stages.tools.<tool>`."""
