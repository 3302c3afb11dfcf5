"""The nouns of podnet as frozen dataclasses: no I/O, nothing of podnet imported."""
