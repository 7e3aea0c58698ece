"""Checkpoints that travel: a folder, a tar or a place on the hub that holds all that a pipeline is,
with a card that says what it is. What opens them is `checkpoint`."""
