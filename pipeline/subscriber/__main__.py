"""`python -m pipeline.subscriber`."""

from pipeline import environment
from pipeline.subscriber.process import use_system_malloc

if __name__ == "__main__":
    # Before all other imports: both restart the interpreter, which imports them a second time.
    environment.restart_without_others()
    use_system_malloc()

    from pipeline.subscriber.server import main

    main()
