"""What no model can pass and what any model has to beat."""
