"""Ingest with a hello route beside it: both parts of the ingest benchmark on one server."""

from __future__ import annotations

from pipeline import lifecycle, logs, settings
from pipeline.ingest import server
from pipeline.ingest.front import ReactionsFront


def load(values: settings.Settings, shared: server.Shared) -> ReactionsFront:
    """Return a worker's app with `GET /hello`, the smallest Flask route."""
    front = server.worker_app(values, shared)

    @front.app.get("/hello")
    def hello() -> bytes:
        return b"hello"

    return front


def main() -> None:
    """`python -m experiments.bench.ingest_server`."""
    chosen = settings.main("experiments.bench.ingest_server", "Ingest with a hello route.", server.OPTIONS)
    logs.configure("ingest", chosen.log_level)
    lifecycle.run_main("experiments.bench.ingest_server", lambda: server.serve(chosen, load))


if __name__ == "__main__":
    main()
