"""Atomic, verified files on disk and in object storage, and the store of MLflow."""
