"""The representative policies compared on the same counts."""
