"""Is this what it claims to be? One set of rules about samples, sets of them and predictions, in
the same words wherever they are looked at: `judging` has the table and what is asked of it."""
