"""The stream bench: our loaders against webdataset's, spilling, a reader's memory, the cost of kept labels."""
