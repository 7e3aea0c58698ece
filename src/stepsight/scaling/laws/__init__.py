"""Forms of laws, fits, intervals, and what a fit is worth."""
