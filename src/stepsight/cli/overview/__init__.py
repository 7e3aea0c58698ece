"""Commands that look at runs and machines: what there is, and how it stands."""
