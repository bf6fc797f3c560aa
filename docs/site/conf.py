"""How the pages become a site; `make docs` copies them beside each other and adds references."""

project = "kfp-bento"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "docs/README"
highlight_language = "none"  # of what names none: commands, and what they print
smartquotes = False
exclude_patterns = ["runtime/*/templates/*"]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.header"]

html_theme = "furo"
html_title = "kfp-bento"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_use_index = False
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0f766e", "color-brand-content": "#0f766e"},
    "dark_css_variables": {"color-brand-primary": "#5eead4", "color-brand-content": "#5eead4"},
}
