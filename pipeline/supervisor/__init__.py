"""The supervisor: starts every stage of a chain, restarts what dies, and scales it."""
