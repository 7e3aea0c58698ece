"""The protocols there are, a file of rows for each kind of task; the table: `metrics.protocol`."""
