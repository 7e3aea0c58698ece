"""One reader per data set: from its own files to samples in physical units, with valid masks."""
