"""podnet: pod networks that you can build, break, see and prove on one Linux machine."""

__version__ = "0.1.0"
