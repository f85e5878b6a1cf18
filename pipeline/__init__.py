"""The chain: every stage from a tap on a phone to the screens of everyone watching."""
