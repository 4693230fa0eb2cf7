// Uploads of the Knowledge tab: one request a document through the API, as any client would send it.
(() => {
  const WORDS = { waiting: "waiting", sending: "sending", reading: "reading, embedding, indexing", added: "added", replaced: "replaced", unchanged: "unchanged", failed: "failed", stopped: "stopped" };
  const TONES = { added: "completed", replaced: "completed", unchanged: "", failed: "failed", stopped: "waiting", sending: "running", reading: "running", waiting: "" };
  const ENDED = new Set(["added", "replaced", "unchanged", "failed", "stopped"]);
  const api = (path) => new URL(`../api/ai/${path}`, location.href.replace(/\/?(\?.*)?$/, "/"));
  const address = (id, collection) => {
    const found = api(`documents/${id.split("/").map(encodeURIComponent).join("/")}`);
    found.searchParams.set("collection", collection);
    return found;
  };

  // What is known of the document before it is sent: afterwards its date tells whether anything was changed.
  const held = async (id, collection) => {
    const answer = await fetch(address(id, collection), { cache: "no-store" });
    return answer.ok ? answer.json() : null;
  };

  const send = (file, collection, told, stop) => new Promise((resolve) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("collection", collection);
    form.append("file", file, file.name);
    request.open("POST", api("documents"));
    request.upload.addEventListener("progress", (event) => told("sending", event.total ? event.loaded / event.total : 0));
    request.upload.addEventListener("load", () => told("reading", 1));
    request.addEventListener("load", () => {
      let body = {};
      try { body = JSON.parse(request.responseText); } catch { /* a proxy's page: the status says enough */ }
      resolve({ status: request.status, body });
    });
    request.addEventListener("error", () => resolve({ status: 0, body: {} }));
    request.addEventListener("abort", () => resolve({ status: -1, body: {} }));
    stop.addEventListener("abort", () => request.abort());
    request.send(form);
  });

  const why = ({ status, body }) => body.detail || body.title || (status ? `The server answered ${status}. Try again.` : "The server did not answer. Look at the connection and try again.");

  const take = async (file, collection, told, stop) => {
    if (stop.aborted) return told("stopped");
    told("sending", 0);
    try {
      const before = await held(file.name, collection);
      const answer = await send(file, collection, told, stop);
      const record = answer.status === 201 && answer.body.documents && answer.body.documents[0];
      if (answer.status === -1) told("stopped");
      else if (!record) told("failed", 1, why(answer));
      else told(!before ? "added" : before.updatedAt === record.updatedAt ? "unchanged" : "replaced", 1);
    } catch {
      told("failed", 1, "The server did not answer. Look at the connection and try again.");
    }
  };

  const line = (list, file) => {
    const row = list.appendChild(document.querySelector("#kn-upload-line").content.firstElementChild.cloneNode(true));
    row.querySelector(".name").textContent = file.name;
    const told = (state, share = 0, reason = "") => {
      row.dataset.state = state;
      const pill = row.querySelector(".pill");
      pill.className = `pill ${TONES[state]}`;
      pill.textContent = state === "sending" ? `sending ${Math.round(share * 100)} %` : WORDS[state];
      row.querySelector(".meter i").style.width = `${Math.round((ENDED.has(state) || state === "reading" ? 1 : share) * 100)}%`;
      row.querySelector(".reason").textContent = reason;
    };
    told("waiting");
    return told;
  };

  const summary = (list) => {
    const counts = {};
    for (const row of list.children) counts[row.dataset.state] = (counts[row.dataset.state] || 0) + 1;
    return Object.entries(counts).map(([state, count]) => `${count} ${WORDS[state]}`).join(", ");
  };

  const openUpload = (button) => {
    const dialog = document.querySelector("#kn-upload-sheet").content.firstElementChild.cloneNode(true);
    const on = (selector) => dialog.querySelector(selector);
    const [form, files, list, close, status] = [on("form"), on("[type=file]"), on("ul"), on(".close"), on("[role=status]")];
    let running = null;
    form.elements.collection.value = button.dataset.collection;
    const begin = async (chosen) => {
      if (running || !chosen.length || !form.reportValidity()) return;
      running = new AbortController();
      const collection = form.elements.collection.value.trim();
      form.elements.collection.readOnly = files.disabled = true;
      list.replaceChildren();
      close.textContent = "Stop";
      const lines = [...chosen].map((file) => [file, line(list, file)]);
      for (const [file, told] of lines) {
        await take(file, collection, told, running.signal);
        status.textContent = summary(list);
      }
      running = null;
      form.elements.collection.readOnly = files.disabled = false;
      files.value = "";
      close.textContent = "Close";
      // The page behind is drawn anew, with what is in the collection now.
      const changed = document.querySelector("#kn-upload [data-act=uploaded]");
      if (changed) { changed.dataset.collection = collection; changed.click(); }
    };
    const leave = () => (running ? running.abort() : dialog.close());
    files.addEventListener("change", () => begin(files.files));
    form.addEventListener("submit", (event) => { event.preventDefault(); if (!running) files.click(); });
    close.addEventListener("click", leave);
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); leave(); });
    dialog.addEventListener("close", () => { dialog.remove(); document.querySelector("#kn-upload [data-upload]")?.focus(); });
    const drop = on(".drop");
    for (const kind of ["dragover", "dragleave", "drop"]) {
      drop.addEventListener(kind, (event) => {
        event.preventDefault();
        drop.classList.toggle("over", kind === "dragover");
        if (kind === "drop") begin(event.dataTransfer.files);
      });
    }
    document.body.append(dialog);
    dialog.showModal();
  };

  addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("[data-upload]");
    if (button) openUpload(button);
  });
})();
