"""`python -m pipeline.subscriber`."""

from pipeline.subscriber.process import use_system_malloc

if __name__ == "__main__":
    # Before all other imports: it restarts the interpreter, which imports them a second time.
    use_system_malloc()

    from pipeline.subscriber.server import main

    main()
