"""The whole road on one machine, for a newcomer to watch."""
