"""Training a backbone that denoises the targets of the tasks."""
