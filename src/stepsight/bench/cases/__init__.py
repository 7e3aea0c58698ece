"""One file a bench; see `stepsight.bench.table`."""
