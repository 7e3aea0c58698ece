"""The host ahead of the device: batches lie ready there, and outcomes are heard one step late."""
