"""Join radiographs to clinical rows, fuse them, and report honestly what each one adds."""

from importlib.metadata import version

__version__ = version("osteofusion")
