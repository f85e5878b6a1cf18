"""One measured run: the chain, the load, the audience, and what is read back."""
