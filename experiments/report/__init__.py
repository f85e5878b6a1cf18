"""The report of a run: figures, sentences, tables, page."""
