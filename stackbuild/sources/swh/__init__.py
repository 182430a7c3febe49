"""Software Heritage: graph exports, object stores, and what is made of them."""
