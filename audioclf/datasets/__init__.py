"""Data sets: how to read each kind, and the official splits of the known ones."""
