"""A duel: two versions, or two settings, run in turn within each block, and what that supports."""
