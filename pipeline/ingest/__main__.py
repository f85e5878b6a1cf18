"""`python -m pipeline.ingest`."""

from pipeline.ingest.server import main

if __name__ == "__main__":
    main()
