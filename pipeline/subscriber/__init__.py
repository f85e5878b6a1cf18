"""A subscriber: holds its clients' connections and sends each of them every window."""
