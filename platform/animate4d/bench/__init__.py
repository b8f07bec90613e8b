"""Benches: how fast the parts are on a machine, and how good, against plain versions of themselves or the truth."""
