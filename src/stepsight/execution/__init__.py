"""How work is executed, in training and sampling alike: precision, compilation, device noise."""
