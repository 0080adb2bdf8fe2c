"""A fit of the motions: its stages, in the order in which they happen."""
