"How Sphinx builds the site from the pages that tools/build_site.py prepares."

import configparser
from pathlib import Path

_settings = configparser.ConfigParser(delimiters=["="])
_settings.read(Path(__file__).resolve().parents[1] / "settings.ini", encoding="utf-8")
_settings = _settings["DEFAULT"]

project = _settings["lib_name"]
author = _settings["author"]
copyright = _settings["copyright"]
release = version = _settings["version"]

extensions = ["myst_nb"]
nb_execution_mode = "off"  # the pages come with their outputs
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "deflist", "html_image"]
myst_heading_anchors = 4
suppress_warnings = [
    "myst.header",  # a page may go from its title straight to a function
    "mystnb.unknown_mime_type",  # output for which there is a plainer form beside it
]

html_theme = "pydata_sphinx_theme"
html_title = "mlbench"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["figures.js"]
html_show_sourcelink = False
html_copy_source = False
html_last_updated_fmt = None
html_sidebars = {"index": [], "changelog": []}
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "navigation_depth": 3,
    "show_nav_level": 1,
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-light",
    "pygments_dark_style": "a11y-dark",
}
