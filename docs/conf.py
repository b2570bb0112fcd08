"""Sphinx configuration. What is generated from the code is made in `_ext/generate.py` before Sphinx looks for files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from generate import generate  # noqa: E402

import stalign  # noqa: E402

generate(HERE)
os.environ.pop("MPLBACKEND", None)  # such as Agg in CI, with which tutorials would draw no figures into their pages

project = "stalign"
author = "the stalign developers"
copyright = "2026, the stalign developers"
version = release = stalign.__version__
repository = os.environ.get("STALIGN_REPOSITORY", "")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_ext", "generated/include/*", "**.ipynb_checkpoints"]
# stubs of autosummary take the first
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_param = True
napoleon_custom_sections = ["Reads", "Returns", "Writes"]  # prose, not types
default_role = "code"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off" if os.environ.get("STALIGN_DOCS_EXECUTE", "").lower() == "off" else "force"
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"

# Links into other projects need the network, so they are made only when asked for.
if os.environ.get("STALIGN_DOCS_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "anndata": ("https://anndata.readthedocs.io/en/stable", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable", None),
        "squidpy": ("https://squidpy.readthedocs.io/en/stable", None),
        "spatialdata": ("https://spatialdata.scverse.org/en/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }

html_theme = "sphinx_book_theme"
html_title = "stalign"
html_static_path = ["_static"]
html_css_files = ["stalign.css"]
html_show_sourcelink = False
html_theme_options = {
    "path_to_docs": "docs",
    "show_navbar_depth": 1,
    "use_download_button": True,
    "navigation_with_keys": False,
}
if repository:
    html_theme_options |= {"repository_url": repository, "use_repository_button": True}
