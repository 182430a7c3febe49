"""The trainer (DESIGN: section 8). Nothing outside this folder imports torch."""
