"""The sample cache: samples made once, at working size, in a memory-mapped file."""
