"""How the documents become a site: `make docs` builds it offline, with warnings as errors."""

from __future__ import annotations

import stepcredit

project = "stepcredit"
release = stepcredit.__version__
author = "the authors of stepcredit"
project_copyright = author

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "**/investigation.md"]  # They stand in findings.md.
nitpicky = False

myst_heading_anchors = 4
nb_execution_mode = "off"  # The notebook is kept with its outputs; a test runs it.
nb_ipywidgets_js: dict[str, object] = {}

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "show-inheritance": False}
autoclass_content = "class"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 90
add_module_names = False

html_theme = "furo"
html_title = "stepcredit"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
