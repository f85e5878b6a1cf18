"""Benchmarks: `python -m experiments bench SUITE` prints and writes JSON; each compares within one run."""
