"""Faults made to happen for real, and what the platform does about each: `animate4d bench faults`."""
