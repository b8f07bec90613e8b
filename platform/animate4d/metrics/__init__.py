"""Pure functions that score images, motion and geometry."""
