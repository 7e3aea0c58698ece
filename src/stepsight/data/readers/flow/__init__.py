"""Readers of optical flow data sets, one file each."""
