"""Tar shards of any source: how a sample becomes members, the index, writing and reading."""
