"""Text classification: the tasks of GLUE, tokenised once and batched by length."""
