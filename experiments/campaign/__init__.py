"""Campaigns: many runs by one design, resumable."""
