"""MLflow only: runs, metrics, images, tables and the model registry."""
