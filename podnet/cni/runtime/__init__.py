"""The runtime's side of CNI: read a network's configuration and call its chain of plugins, as libcni does."""
