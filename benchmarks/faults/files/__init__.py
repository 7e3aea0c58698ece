"""Files that are not what they should be, and what reads them in a process of its own."""
