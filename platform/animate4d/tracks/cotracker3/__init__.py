"""CoTracker3 written from a description of its computation; reads the released checkpoints, ships none of them."""
