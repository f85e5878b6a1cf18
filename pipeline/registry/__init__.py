"""The registry: registers clients and assigns each to a subscriber."""
