"""Cameras, planes and rigid motion, before anything is drawn."""
