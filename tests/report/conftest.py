"""Runs and a study of the demo cohort, made once."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
import yaml


class Page(HTMLParser):
    """Elements and text of a page."""

    def __init__(self, source):
        super().__init__()
        self.source, self.elements, self.texts, self._hidden = source, [], [], False
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._hidden = False

    def handle_data(self, data):
        if not self._hidden:
            self.texts.append(data)

    def all(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="session")
def study(cli, tmp_path_factory):
    """Folder of a finished study: two arms on two folds, read only."""
    cwd = tmp_path_factory.mktemp("studied")
    content = {"config": "binary.yaml", "arms": ["tabular", "fused"], "folds": 2}
    (cwd / "toy.yaml").write_text(yaml.safe_dump(content))
    result = cli("study", "--config", "toy.yaml", "--out", "out", *cli.toy, cwd=cwd)
    assert result.code == 0, result.err
    return cwd / "out"


@pytest.fixture
def report(cli, tmp_path):
    """`osteofusion report` into a folder of the test; the page."""

    def write(folder, *options):
        result = cli("report", folder, "--out", tmp_path / "page.html", *options, cwd=tmp_path)
        assert result.code == 0, result.err
        return Page((tmp_path / "page.html").read_text(encoding="utf-8"))

    return write
