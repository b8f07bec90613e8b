"""Benches: how fast the parts are on a machine, against plain versions of themselves that give the same result."""
