"""A study: stages of training, sampling and fitting as one graph, told in a file and resumable."""
