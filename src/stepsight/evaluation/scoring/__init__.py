"""From an image to its rows of numbers, and where they are kept meanwhile."""
