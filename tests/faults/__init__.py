"""What can go wrong, against the whole program: the real service (router and node processes) and a hub on loopback."""
