"""What the registry serves to a browser: the page, and the operator's view of the chain."""
