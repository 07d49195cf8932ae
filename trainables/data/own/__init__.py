"""User datasets: array or table files, the Hugging Face hub, and code."""
