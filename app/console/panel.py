"""The one component through which the console shows HTML of its own.

Gradio's HTML component runs whatever it is given, so a panel accepts only what `view.draw` made. Elements with
`data-act` raise an event of that name with their `data-*` values; those come back from a browser and are as
untrusted as any request: handlers pass them to the store, which looks ids up within the caller's tenant.
"""

from typing import Any, Final

import gradio as gr
from markupsafe import Markup

EMPTY: Final = Markup()

_LISTEN: Final = """
const acts = new Set([%s]);
const say = (hit, more) => trigger(hit.dataset.act, {...hit.closest('[data-run]')?.dataset, ...hit.dataset, ...more});
element.addEventListener('click', (event) => {
  const hit = event.target.closest('[data-act]');
  if (!hit || hit.tagName === 'FORM' || !acts.has(hit.dataset.act)) return;
  if (hit.tagName === 'A' && (event.metaKey || event.ctrlKey || event.shiftKey)) return;
  event.preventDefault();
  if (hit.dataset.sure && !hit.classList.contains('armed')) {
    const before = hit.innerHTML;
    hit.classList.add('armed');
    hit.textContent = hit.dataset.sure;
    setTimeout(() => { if (hit.isConnected) { hit.classList.remove('armed'); hit.innerHTML = before; } }, 3000);
    return;
  }
  say(hit, {});
});
element.addEventListener('submit', (event) => {
  const form = event.target.closest('form[data-act]');
  if (!form || !acts.has(form.dataset.act)) return;
  event.preventDefault();
  say(form, Object.fromEntries(new FormData(form, event.submitter)));
});
"""


def panel(value: Markup = EMPTY, *, acts: tuple[str, ...] = (), elem_id: str) -> gr.HTML:
    """A panel that raises the events named in `acts`: `made.<act>(handler, ...)` listens to one."""
    made = gr.HTML(
        _drawn(value),
        js_on_load=_LISTEN % ", ".join(f"'{act}'" for act in acts),
        apply_default_css=False,
        elem_id=elem_id,
    )
    # Replaced on the instance: for a subclass, Gradio would write a .pyi file beside this one at import.
    made.postprocess = _drawn
    return made


def said(event: gr.EventData, name: str) -> str:
    """A text that the browser sent with an event; empty if it sent none or something else."""
    data = event._data
    value = data.get(name) if isinstance(data, dict) else None
    return value if isinstance(value, str) else ""


def _drawn(value: Any) -> str:
    """Raises TypeError for a string that was not drawn."""
    if not isinstance(value, Markup):
        raise TypeError(f"a panel shows drawn Markup, not {type(value).__name__}")
    return str(value)
