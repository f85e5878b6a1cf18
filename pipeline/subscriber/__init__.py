"""A subscriber: holds its clients' connections and sends each client every window."""
