"""`python -m osteofusion`."""

from osteofusion.cli import entry

entry()
