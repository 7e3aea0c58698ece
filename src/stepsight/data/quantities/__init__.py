"""What single quantities need: resizing and drawing, by the rows of `data/fields.py`."""
