"""What we are set beside: published methods stated anew, and other packages' own classes."""
