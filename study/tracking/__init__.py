"""What MLflow gets of a study."""
