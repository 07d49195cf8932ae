"""Delivery of a study to MLflow."""
