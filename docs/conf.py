"""Configuration of the site: `make docs` builds it into build/docs.

Two parts are made at each build and not kept: `reference/`, a page for each folder of the packages with what its
docstrings say, and `notebooks/`, copies of the notebooks, shown as they are and not executed.
"""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import BuiltinFunctionType
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "EmoStream"
author = _PROJECT["authors"][0]["name"]
version = release = _PROJECT["version"]
# `copyright` would shadow a builtin, and the licence says it.
html_show_copyright = False

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["Thumbs.db"]
html_theme = "furo"
html_title = "EmoStream"
html_show_sourcelink = False
html_static_path: list[str] = []
templates_path: list[str] = []

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "html_image"]
nb_execution_mode = "off"
# Outputs of a library's own kind have a text form as well.
suppress_warnings = ["mystnb.unknown_mime_type"]

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
# Too heavy to import for reading, or with effects when imported.
autodoc_mock_imports = ["airflow", "gevent", "granian", "IPython", "ipywidgets", "locust", "pyspark"]
python_use_unqualified_type_names = True
# External inventories are not fetched, so names of types are not checked; links between pages are.
nitpick_ignore_regex = [("py:.*", ".*")]

PACKAGES = ("pipeline", "spark", "experiments")
# Modules that are commands only, or that a tool loads by its path.
LEFT_OUT = {"__main__", "locustfile"}


def folders() -> Iterator[tuple[str, list[str]]]:
    """Yield each package with the names of its modules that the reference shows."""
    for top in PACKAGES:
        for init in sorted((ROOT / top).rglob("__init__.py")):
            package = ".".join(init.parent.relative_to(ROOT).parts)
            names = sorted(path.stem for path in init.parent.glob("*.py"))
            yield package, [f"{package}.{name}" for name in names if name not in {"__init__", *LEFT_OUT}]


def reference_page(package: str, modules: list[str]) -> str:
    """Return the Markdown of one package's page."""
    parts = [f"# {package}"]
    for module in [package, *modules]:
        heading = [] if module == package else [f"## {module.removeprefix(package + '.')}"]
        parts += [*heading, f"```{{eval-rst}}\n.. automodule:: {module}\n```"]
    return "\n\n".join(parts) + "\n"


def keep(path: Path, text: str) -> None:
    """Write a page, unless it is there already: an unchanged file need not be read again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def write_reference(target: Path) -> None:
    """Write the pages of the reference and remove those of packages that are gone."""
    pages = {f"{package}.md": reference_page(package, modules) for package, modules in folders()}
    toctree = "\n".join(name.removesuffix(".md") for name in pages)
    intro = "What the docstrings of each package say; `_name` and undocumented names are left out."
    pages["index.md"] = f"# Reference\n\n{intro}\n\n```{{toctree}}\n:maxdepth: 1\n\n{toctree}\n```\n"
    for name, text in pages.items():
        keep(target / name, text)
    for path in target.glob("*.md"):
        if path.name not in pages:
            path.unlink()


def copy_notebooks(target: Path) -> None:
    """Copy the notebooks to where Sphinx reads."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        shutil.copy2(path, target / path.name)


# Docstrings are plain text with `code` in single backquotes, not reStructuredText.
_CODE = re.compile(r"(`[^`\n]+(?:\n[^`\n]+)?`)")
_SPECIAL = re.compile(r"([\\*_|])")


def _inline(text: str) -> str:
    parts = _CODE.split(text)
    return "".join(
        f"``{' '.join(part[1:-1].split())}``\\ " if index % 2 else _SPECIAL.sub(r"\\\1", part)
        for index, part in enumerate(parts)
    )


def _paragraph(lines: list[str]) -> list[str]:
    """Return a paragraph of a docstring as reStructuredText: indented text and tables as they are, the rest as text."""
    if all(line.startswith((" ", "|")) for line in lines):
        return ["::", "", *(f"    {line}" for line in lines)]
    return _inline("\n".join(lines)).split("\n")


def plain_docstring(_app: Any, _what: str, _name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
    """Turn a plain docstring into reStructuredText, in place (autodoc-process-docstring)."""
    result: list[str] = []
    for block in re.split(r"\n[ \t]*\n", "\n".join(lines).strip("\n")):
        result += [*_paragraph(block.split("\n")), ""]
    lines[:] = result


def skip_borrowed(_app: Any, _what: str, _name: str, thing: Any, skip: bool, _options: Any) -> bool | None:
    """Leave out functions of compiled libraries that a module gives a name, such as `encode` (autodoc-skip-member)."""
    return True if isinstance(thing, BuiltinFunctionType) else skip or None


def generate(_app: Any) -> None:
    """Write what is generated, before Sphinx looks for pages (builder-inited)."""
    write_reference(DOCS / "reference")
    copy_notebooks(DOCS / "notebooks")


def setup(app: Any) -> None:
    """Connect the above to Sphinx."""
    app.connect("builder-inited", generate)
    app.connect("autodoc-process-docstring", plain_docstring)
    app.connect("autodoc-skip-member", skip_borrowed)
