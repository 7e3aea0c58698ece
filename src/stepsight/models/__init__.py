"""Backbones and codecs: plain maps that know channels and an integer label, never a task."""
