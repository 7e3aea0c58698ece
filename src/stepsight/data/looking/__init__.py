"""A stranger's files: what a tree of pictures and truth holds, told by evidence, as settings and a
list for the reader `folder`."""
