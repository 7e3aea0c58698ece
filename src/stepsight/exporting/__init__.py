"""The whole answer of a checkpoint as one graph, for programs without stepsight: `graph` makes it,
`files` writes and opens it, `parity` compares it with the pipeline."""
