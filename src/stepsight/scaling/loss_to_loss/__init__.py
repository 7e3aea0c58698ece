"""Losses carried from one data set, task or stage to another."""
