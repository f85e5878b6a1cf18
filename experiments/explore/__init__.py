"""A live session with a chain in a notebook. Its figures are not for quoting."""
