"""Who asked to be left out: the list, how its entries are read, and what they remove."""
