"""Text classification: the GLUE tasks, tokenised once and batched by length."""
