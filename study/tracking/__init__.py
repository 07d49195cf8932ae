"""Study delivery to MLflow."""
