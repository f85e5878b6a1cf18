"""What the registry shows in a browser: the page, and the operator's view of the chain."""
