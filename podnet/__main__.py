"""python -m podnet."""

from podnet.cli import program

program()
