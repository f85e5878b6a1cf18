"""`python -m pipeline.client`."""

from pipeline.client.client import main

if __name__ == "__main__":
    main()
