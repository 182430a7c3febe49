"""Stages on anyone's tables, without a recipe."""
