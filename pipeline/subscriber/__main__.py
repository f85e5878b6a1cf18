"""`python -m pipeline.subscriber`."""

from pipeline.subscriber.process import use_system_malloc

if __name__ == "__main__":
    # Before all else: whatever is imported by then is imported twice.
    use_system_malloc()

    from pipeline.subscriber.server import main

    main()
