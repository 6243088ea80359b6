"""Configuration of the documentation site.

python -m sphinx -W docs build/docs
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

import mtljax  # noqa: E402

project = "mtljax"
author = "The mtljax authors"
copyright = author
version = release = mtljax.__version__
language = "en"
smartquotes_action = "qe"  # no dashes: "--" begins a flag

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
extensions += ["accessibility", "api", "command_line", "errors", "layers", "mathml", "methods"]
extensions += ["repository", "schemas", "streams"]
exclude_patterns = ["_ext"]
suppress_warnings = [
    "ref.python",  # a name in a docstring that several classes have
]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

# Notebooks and the commands in them use this Python and this checkout, print plain text, and write
# to a temporary folder.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
os.environ["TTY_COMPATIBLE"] = "0"
os.environ["SHELLOPTS"] = "errexit:pipefail"  # a command that fails in a cell fails the build
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no notes of XLA on slow compilation
nb_execution_in_temp = True
# Notebooks: `off` in .ci/run, `cache` runs those that changed since they were cached.
nb_execution_mode = os.environ.get("MTLJAX_DOCS_NOTEBOOKS", "cache")
nb_execution_cache_path = os.environ.get("MTLJAX_DOCS_CACHE", str(ROOT / "build" / "docs-cache"))
nb_execution_raise_on_error = True
nb_execution_timeout = -1
nb_merge_streams = True
nb_render_markdown_format = "myst"  # CommonMark has no tables

autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
add_module_names = False
toc_object_entries = False  # 90 % of the tree of contents, which is copied for every page

highlight_language = "none"
html_theme = "furo"
html_title = f"mtljax {version}"
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["filter.js"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": False}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
math_numfig = False
html_math_renderer = "mathml"
