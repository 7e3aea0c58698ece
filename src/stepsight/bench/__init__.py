"""What the work costs beside the peers: equal outputs first, then all sides in turns.

`table` names the benches, each of which is one file of `cases`; `protocol` times them, `peers` is
what they are set beside, `running` makes a document of it, `comparing` holds one against another,
`page` prints. Another bench is one more file in `cases` and one more line in the table.
"""
