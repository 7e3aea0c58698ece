"""Training the VAE whose latents a backbone may work in."""
