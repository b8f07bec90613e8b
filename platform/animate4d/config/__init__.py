"""Dataclass configs: command line generated from them, saved and hashed as JSON."""
