"""How to spend compute: parameters or samples, training or sampling."""
