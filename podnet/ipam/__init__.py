"""Address pools, and the store of reservations."""
