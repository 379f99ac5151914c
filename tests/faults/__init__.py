"""Injuries done to real runs, and what has to hold after each: `python -m tests.faults`; docs/reliability.md."""
