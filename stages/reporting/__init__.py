"""From evaluations to statistics, tables, charts and a page."""
