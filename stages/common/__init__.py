"""What every stage needs and no result depends on: parameters, paths, errors, processes, output."""
