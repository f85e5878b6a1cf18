"""`python -m experiments.load`."""

from experiments.load.sender_processes import main

if __name__ == "__main__":
    main()
