"""`python -m pipeline.registry`."""

from pipeline.registry.server import main

if __name__ == "__main__":
    main()
