"""One HTML page to look at a cohort before anything is trained on it."""

from osteofusion.data.page.write import write_page

__all__ = ["write_page"]
