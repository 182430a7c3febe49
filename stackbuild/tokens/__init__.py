"""Tokenizer, indexed dataset and document table."""
