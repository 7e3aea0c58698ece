"""What single quantities need: resizing, drawing and checking, by the rows of `data/fields.py`."""
