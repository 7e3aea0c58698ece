"""stepsight: dense perception by iterative denoising."""
