"""What the registry is made of: who is a client, and which subscriber holds it."""
