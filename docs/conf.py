"""The site: Sphinx with furo and MyST. `python -m sphinx -W docs build/docs` needs no network."""

import ast
import dataclasses
import itertools
import sys
from pathlib import Path
from typing import Any, get_args

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import audioclf  # noqa: E402
from audioclf import config  # noqa: E402
from audioclf.config import TrainConfig  # noqa: E402

project = "audioclf"
author = "The audioclf authors"
copyright = f"2026, {author}"
release = version = audioclf.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
exclude_patterns = ["generated"]
html_theme = "furo"
html_title = f"audioclf {release}"
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
default_role = "code"  # single backticks of docstrings
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_use_ivar = True
suppress_warnings = ["myst.header"]

OPTIONS = HERE / "generated" / "options.md"


def options_table() -> str:
    """The options of `TrainConfig`, with their texts, as a definition for each in the order of the source."""
    source = ast.parse((HERE.parent / "audioclf" / "config.py").read_text(encoding="utf-8"))
    (body,) = (node.body for node in source.body if isinstance(node, ast.ClassDef) and node.name == "TrainConfig")
    texts, kinds = {}, {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            texts[field.target.id] = text.value.value
            kinds[field.target.id] = ast.unparse(field.annotation)
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    assert list(texts) == names, "every option has a text"
    lines = ["| option | default | |", "|---|---|---|"]
    for name in names:
        default = next(field.default for field in dataclasses.fields(TrainConfig) if field.name == name)
        text = " ".join([*texts[name].split(), _choices(kinds[name])]).strip().replace("|", "\\|")
        lines.append(f"| `{name}` | `{default!r}` | {text} |")
    return "\n".join(lines) + "\n"


def _choices(kind: str) -> str:
    """The words that an option takes, where its type is a `Literal` of config.py."""
    words = get_args(getattr(config, kind.split(" | ")[0], None))
    return f"One of {', '.join(f'`{word}`' for word in words)}." if words and set(map(type, words)) == {str} else ""


def setup(_app: Any) -> None:
    """Writes what pages include."""
    OPTIONS.parent.mkdir(exist_ok=True)
    table = options_table()
    if not OPTIONS.exists() or OPTIONS.read_text(encoding="utf-8") != table:  # else every build would read all anew
        OPTIONS.write_text(table, encoding="utf-8")
