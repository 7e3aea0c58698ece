"""Readers of segmentation data sets, one file per data set."""
