"""What stands in the rows that a law is fitted to: repeats, runs, scores, units and outliers.

A fit believes its points. Here they are looked at first, as a careful colleague would: pure
functions on columns, which return the rows and say in sentences what was done, or what to look at.
"""
