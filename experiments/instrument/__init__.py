"""The instrument's own test: faults that are planted, each to be caught under its name, and clean runs."""
