"""What a client is made of: its registration, one connection of each transport, and when it comes back."""
