"""What a run will need, before it is started: memory, hours, and whether it could start at all."""
