"""Options of the commands that are not LightningCLI's."""

from __future__ import annotations

import argparse
from typing import NoReturn

from osteofusion.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Says a mistake as every command does: in one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Refuse.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{self.prog}: {message}; see {self.prog} --help.")
