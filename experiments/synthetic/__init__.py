"""Runs and campaigns with known truth, made without a chain."""
