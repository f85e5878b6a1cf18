"""What the supervisor is made of: which processes make a chain, and when it is ready."""
