"""The page of a study: the figures of the paper, drawn from our records or from a table."""
