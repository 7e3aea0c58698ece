"""A page in the browser on which a checkpoint answers pictures and films that are dropped there."""
