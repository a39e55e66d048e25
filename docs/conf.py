"""Settings of Sphinx, which makes the site of these pages; the reasons are in design/0012-the-manual.md."""

from importlib.metadata import version as version_of

project = "repbench"
author = "The repbench authors"
copyright = "The repbench authors"
release = version = version_of("repbench")

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"repbench {release}"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_show_sphinx = False
html_copy_source = False
html_last_updated_fmt = None
pygments_style = "default"
pygments_dark_style = "github-dark"
