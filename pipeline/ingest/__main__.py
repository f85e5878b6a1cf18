"""`python -m pipeline.ingest`."""

from pipeline import environment

if __name__ == "__main__":
    # Before all other imports: some of them read the environment.
    environment.restart_without_others()

    from pipeline.ingest.server import main

    main()
