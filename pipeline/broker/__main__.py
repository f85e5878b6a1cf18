"""`python -m pipeline.broker`."""

import sys

from pipeline.broker.embedded import main

if __name__ == "__main__":
    sys.exit(main())
