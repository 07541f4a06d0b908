"""Hugging Face directories: configurations, tensors and their table, FP8; read, checked, written."""
