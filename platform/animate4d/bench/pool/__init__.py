"""The batch pool on a small cluster, with rows that only sleep."""
