"""What the reader `folder` is made of: which files belong together, what is held out, one grid."""
