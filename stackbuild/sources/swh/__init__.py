"""Software Heritage: graph exports read as tables, file contents fetched by SHA-1 and verified."""
