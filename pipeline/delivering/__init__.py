"""What a subscriber is made of: from a window to the bytes on every client's connection."""
