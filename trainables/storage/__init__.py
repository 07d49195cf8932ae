"""Atomic, verified files on disk and in object storage, and MLflow's store."""
