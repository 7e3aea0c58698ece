"""Readers of optical flow data sets, one file per data set."""
