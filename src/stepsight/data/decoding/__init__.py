"""Files to arrays, without trust: every failure is a `DataFormatError` that names the file."""
