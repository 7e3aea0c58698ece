"""Trees of files as people have them, each written in the exact bytes of its formats, with what a
reader must make of it."""
