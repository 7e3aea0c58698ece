"""The diffusion process: objective and samplers."""
