"""Configuration of the documentation, for Sphinx: `make docs`.

Sphinx was chosen because it reads docstrings (autodoc), fails on every broken internal link (`-W -n`) and needs no
network. Material for MkDocs, the other candidate, is in maintenance mode since November 2025.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generated_pages import write_pages

from study import __version__

project = "pesfkd"
author = copyright = "The pesfkd maintainers"  # noqa: A001
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_templates"]
myst_heading_anchors = 3
# Notebooks are shown with the outputs in their files. Tests compare these with the outputs of a run.
nb_execution_mode = "off"
nb_render_markdown_format = "gfm"
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
# The sources and examples of the repository are no pages. Links between pages are checked.
suppress_warnings = ["myst.strikethrough"]

html_theme = "furo"
html_title = f"pesfkd {release}"
html_static_path = ["_static"]
html_css_files = ["pesfkd.css"]
html_theme_options = {"top_of_page_buttons": []}
html_copy_source = False
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Args", "params_style"), "Source"]
default_role = "literal"
smartquotes = False  # would turn the hyphens of options into dashes
# Other projects' types are not linked, because the build has no network. Types of this project that are not part of the
# interface appear in signatures by name alone.
nitpick_ignore_regex = [
    ("py:.*", r"(pathlib|os|pandas|pd|numpy|np|torch|pyarrow|pa|collections|typing|ray|plotly|matplotlib)\b.*"),
    ("py:.*", r"(Path|Any|Literal|Mapping|Sequence|Iterable|Callable|DataFrame|Tensor|optional)\b.*"),
    ("py:.*", r"(StudyPlan|BestConfig|Reproduction|Objective|Option)\b.*"),
    ("py:.*", r"(study|trainables|analysis|search_spaces)\..*"),
]

write_pages(Path(__file__).parent / "generated")
