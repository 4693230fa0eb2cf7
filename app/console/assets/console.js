// What Gradio has no event for: the theme, keys, scrolling, the address, leaving for another site.
(() => {
  const THEME = "pilothouse.theme";
  const byId = (id) => document.getElementById(id);
  const shown = (element) => element && element.offsetParent !== null;

  // Gradio sets the class `dark` from the system's preference after this script; the choice made here stands.
  const wanted = () => localStorage.getItem(THEME) || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const dress = () => {
    const dark = wanted() === "dark";
    if (document.body && document.body.classList.contains("dark") !== dark) document.body.classList.toggle("dark", dark);
  };
  const followBody = () => {
    dress();
    new MutationObserver(dress).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  };
  document.body ? followBody() : addEventListener("DOMContentLoaded", followBody);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dress);

  const toggleTheme = () => {
    localStorage.setItem(THEME, wanted() === "dark" ? "light" : "dark");
    dress();
  };

  // The server's state, next to the name of the tenant.
  const READY_EVERY_MS = 15000;
  const WARMING_EVERY_MS = 2000;
  let ready = { state: "", text: "Connecting" };
  const showReady = () => {
    const dot = byId("ready");
    if (!dot || dot.lastElementChild.textContent === ready.text) return;
    dot.className = `ready ${ready.state}`;
    dot.lastElementChild.textContent = ready.text;
  };
  const askReady = async () => {
    let [state, text] = ["off", "Unreachable"];
    try {
      const answer = await fetch(new URL("../readyz", location.href.replace(/\/?(\?.*)?$/, "/")), { cache: "no-store" });
      [state, text] = answer.ok ? ["on", "Ready"] : ["warming", "Warming up"];
    } catch { /* a server that is gone is what this shows */ }
    ready = { state, text };
    showReady();
    setTimeout(askReady, state === "on" ? READY_EVERY_MS : WARMING_EVERY_MS);
  };

  // A transcript that was at its end stays there while an answer grows; one that was scrolled up is left alone.
  const NEAR_END_PX = 80;
  let pinned = true;
  const follow = () => {
    const transcript = byId("transcript");
    if (transcript && pinned) transcript.scrollTop = transcript.scrollHeight;
  };
  addEventListener("scroll", (event) => {
    const box = event.target;
    if (box.id === "transcript") pinned = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_END_PX;
  }, true);

  // The address names what is shown, so that it can be reloaded and shared.
  // Until the page has drawn what its address asked for, the address is not touched.
  const LOADING_MS = 600;
  let loadedAt = 0;
  const loaded = () => {
    if (!loadedAt && document.querySelector(".identity b:not(:empty)")) loadedAt = performance.now();
    return loadedAt && performance.now() - loadedAt > LOADING_MS;
  };
  const keepAddress = () => {
    if (!loaded()) return;
    const selected = document.querySelector('#tabs [role="tab"][aria-selected="true"]');
    if (!selected) return;
    const address = new URL(location.href);
    address.search = "";
    const run = document.querySelector("[data-shown-run]");
    const conversation = document.querySelector("#history [data-conversation]");
    if (selected.textContent.trim() === "Runs") {
      if (run) address.searchParams.set("run", run.dataset.shownRun);
    } else if (conversation && conversation.dataset.conversation) {
      address.searchParams.set("c", conversation.dataset.conversation);
    }
    if (address.href !== location.href) history.replaceState(null, "", address);
  };

  let document_ = null;
  const showQuote = () => {
    const opened = document.querySelector("#sources .document, #run-document .document, #kn-document .document");
    if (!opened) { document_ = null; return; }
    const mark = opened.querySelector("mark");
    const key = `${opened.dataset.run}/${mark ? mark.textContent : ""}`;
    if (key === document_) return;
    document_ = key;
    const pages = opened.querySelector(".pages");
    if (mark && pages) {
      const above = mark.getBoundingClientRect().top - pages.getBoundingClientRect().top;
      pages.scrollTop += above - pages.clientHeight / 3;
    }
  };

  const markRow = () => {
    const run = document.querySelector("[data-shown-run]");
    for (const row of document.querySelectorAll("#table tr[data-run]")) {
      row.classList.toggle("current", Boolean(run) && row.dataset.run === run.dataset.shownRun);
    }
  };

  // A sheet that the server drew opens above the page: the browser keeps the focus in it and gives it back afterwards.
  const openSheet = () => {
    const sheet = document.querySelector("dialog.sheet");
    if (!sheet || sheet.open) return;
    sheet.addEventListener("cancel", (event) => { event.preventDefault(); sheet.querySelector("[data-act=cancel]").click(); });
    // What was confirmed may take a while, and must not be asked for twice.
    const busy = (event) => {
      const hit = event.type === "submit" ? event.target.querySelector("[type=submit]") : event.target.closest("button.primary[data-act]");
      if (!hit) return;
      sheet.setAttribute("aria-busy", "true");
      hit.textContent = "One moment…";
      setTimeout(() => { hit.disabled = true; });
    };
    sheet.addEventListener("click", busy);
    sheet.addEventListener("submit", busy);
    sheet.showModal();
  };

  let settling = false;
  const settle = () => {
    if (settling) return;
    settling = true;
    requestAnimationFrame(() => {
      settling = false;
      showReady();
      follow();
      showQuote();
      keepAddress();
      markRow();
      openSheet();
    });
  };

  // Before the browser goes to another site with what a model put in the address, the whole address is shown.
  const leave = (url) => {
    const dialog = document.createElement("dialog");
    dialog.className = "leaving";
    dialog.innerHTML = '<h2>Leave the console?</h2><p>This link came from an answer. It leads to:</p><code></code>' +
      '<form method="dialog"><button value="" autofocus>Stay</button><button value="go" class="primary">Open in a new tab</button></form>';
    dialog.querySelector("code").textContent = url;
    dialog.addEventListener("close", () => {
      if (dialog.returnValue === "go") open(url, "_blank", "noreferrer,noopener");
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
  };

  const copy = async (button) => {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1200);
  };

  addEventListener("click", (event) => {
    const on = (selector) => event.target.closest && event.target.closest(selector);
    const outside = on("a.outside");
    if (outside) { event.preventDefault(); leave(outside.href); return; }
    if (on("#theme")) toggleTheme();
    if (on("[data-copy]")) copy(on("[data-copy]"));
    if (on("#send, [data-act=example], [data-act=open], [data-act=decide]")) pinned = true;
  }, true);

  addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
    if (event.key === "Escape") {
      if (shown(byId("stop"))) byId("stop").click();
      else {
        const back = [...document.querySelectorAll("#close-document")].find(shown);
        if (back) back.click();
      }
    } else if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      const field = [...document.querySelectorAll("#message textarea, #message input, #search textarea, #search input, #kn-form [name=query], #kn-filter input, #kn-filter textarea")].find(shown);
      if (field) { event.preventDefault(); field.focus(); }
    } else if (event.key === "Enter" && event.target.matches("tr[data-act]")) {
      event.target.click();
    } else if (event.key === "Enter" && event.target.closest("#message")) {
      pinned = true;
    }
  }, true);

  const begin = () => {
    new MutationObserver(settle).observe(document.body, { childList: true, subtree: true, characterData: true, attributeFilter: ["aria-selected"] });
    askReady();
  };
  document.body ? begin() : addEventListener("DOMContentLoaded", begin);
})();
