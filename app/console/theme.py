"""The look as tokens: one palette in two modes, for our own CSS and, through it, for Gradio's components.

Fonts are the system's: nothing is downloaded. Spacing is in steps of 8 px (4 inside controls).
"""

from collections.abc import Mapping
from typing import Any, Final

import gradio as gr

FONT: Final = ("-apple-system", "BlinkMacSystemFont", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO: Final = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")

# name: (light, dark). Text on its background has a contrast of 4.5 or more in both.
TOKENS: Final[Mapping[str, tuple[str, str]]] = {
    "bg": ("#f3f5f7", "#0c1419"),
    "surface": ("#ffffff", "#131d24"),
    "sunken": ("#eef2f4", "#0f181e"),
    "raised": ("#ffffff", "#1a262e"),
    "line": ("#dbe2e8", "#23313a"),
    "line-strong": ("#bcc8d1", "#3a4c57"),
    "ink": ("#14222d", "#e6eef3"),
    "ink-2": ("#445665", "#a8b9c4"),
    "ink-3": ("#5f7180", "#8497a3"),
    "bar": ("#0f2a37", "#0a1116"),
    "bar-line": ("#0f2a37", "#1d2a32"),
    "accent": ("#0b6b7c", "#57c2d1"),
    "accent-strong": ("#085363", "#7ad3df"),
    "accent-ink": ("#ffffff", "#04222a"),
    "accent-soft": ("#e0f0f2", "#12313a"),
    "brass": ("#8a5a00", "#e9b65c"),
    "brass-soft": ("#fbf0d9", "#33290f"),
    "mark": ("#ffe2a0", "#6a4e12"),
    "good": ("#1a7045", "#62cf97"),
    "good-soft": ("#e1f3e9", "#10301f"),
    "bad": ("#ab3126", "#f28d81"),
    "bad-soft": ("#fbe9e7", "#3a1a17"),
    "blue": ("#2f62a8", "#86b3ee"),
    "rose": ("#95406f", "#e29ac2"),
    # Series of a plot, in their order; the last is for the rest. On their background a contrast of 3 or more.
    "plot-1": ("#17808f", "#4fb3c2"),
    "plot-2": ("#b87d12", "#dda748"),
    "plot-3": ("#4b78bd", "#7ea9e6"),
    "plot-4": ("#b5588a", "#d589b1"),
    "plot-5": ("#3c9064", "#5dbb89"),
    "plot-6": ("#7668b8", "#a496e2"),
    "plot-7": ("#7f909b", "#71838e"),
}


def variables() -> str:
    """The tokens as CSS: `--ph-<name>`, dark under the class that Gradio puts on the body."""
    light = "".join(f"--ph-{name}:{value[0]};" for name, value in TOKENS.items())
    dark = "".join(f"--ph-{name}:{value[1]};" for name, value in TOKENS.items())
    return f":root{{{light}}}\n.dark{{{dark}color-scheme:dark}}\n"


class HarborTheme(gr.themes.Base):  # type: ignore[misc]  # gradio is read untyped, see pyproject
    """Gradio's components in our tokens. Both modes are set: Base would give the dark one its own greys."""

    def __init__(self) -> None:
        super().__init__(font=FONT, font_mono=MONO, text_size=gr.themes.sizes.text_md)
        self.name = "harbor"
        self.set(**_both(_COMPONENTS))


_COMPONENTS: Final[Mapping[str, str]] = {
    "body_background_fill": "bg",
    "body_text_color": "ink",
    "body_text_color_subdued": "ink-3",
    "background_fill_primary": "surface",
    "background_fill_secondary": "sunken",
    "border_color_primary": "line",
    "border_color_accent": "accent",
    "color_accent_soft": "accent-soft",
    "link_text_color": "accent",
    "link_text_color_hover": "accent-strong",
    "link_text_color_active": "accent-strong",
    "link_text_color_visited": "accent",
    "block_background_fill": "surface",
    "block_border_color": "line",
    "block_label_text_color": "ink-2",
    "block_title_text_color": "ink-2",
    "input_background_fill": "surface",
    "input_background_fill_focus": "surface",
    "input_background_fill_hover": "surface",
    "input_border_color": "line",
    "input_border_color_focus": "accent",
    "input_border_color_hover": "line-strong",
    "input_placeholder_color": "ink-3",
    "button_primary_background_fill": "accent",
    "button_primary_background_fill_hover": "accent-strong",
    "button_primary_text_color": "accent-ink",
    "button_primary_text_color_hover": "accent-ink",
    "button_secondary_background_fill": "surface",
    "button_secondary_background_fill_hover": "sunken",
    "button_secondary_text_color": "ink",
    "button_secondary_text_color_hover": "ink",
    "button_secondary_border_color": "line-strong",
    "checkbox_label_background_fill": "surface",
    "checkbox_label_background_fill_hover": "sunken",
    "checkbox_label_background_fill_selected": "accent-soft",
    "checkbox_label_text_color": "ink-2",
    "checkbox_label_text_color_selected": "ink",
    "error_background_fill": "bad-soft",
    "error_border_color": "bad",
    "error_text_color": "bad",
}


def _both(components: Mapping[str, str]) -> dict[str, Any]:
    values = {name: f"var(--ph-{token})" for name, token in components.items()}
    return values | {f"{name}_dark": value for name, value in values.items()}
