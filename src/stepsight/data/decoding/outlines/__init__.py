"""Objects as outlines and run lengths in annotation files -> masks and label maps."""
