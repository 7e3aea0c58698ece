"""Agreement with others' own code: each importer, profile, protocol and sampler beside its oracle.

Where the oracle is a package, it is run here, on the same random weights and inputs. Where it is a
repository, its answers were stored once (`golden`), and such a row is skipped where they are not.
"""
