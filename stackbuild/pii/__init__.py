"""Find what identifies or authenticates a person, and take it out: e-mail addresses, IP addresses, keys."""
