"""The Python client: registers, and receives every window once and in order."""

from pipeline.client.client import Client

__all__ = ["Client"]
