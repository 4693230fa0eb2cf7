// Of the Knowledge tab what Gradio has no event for: sending documents to the API as any client would, and the way
// from a version to a search as of it.
(() => {
  const MAX_FILES = 100; // of one request, and so of one job
  const api = (path) => new URL(`../api/ai/${path}`, location.href.replace(/\/?(\?.*)?$/, "/"));

  // Files go together as long as their sum stays under the limit of one request.
  const packed = (files, limitBytes) => {
    const packs = [];
    let [pack, bytes] = [[], 0];
    for (const file of files) {
      if (pack.length && (pack.length === MAX_FILES || bytes + file.size > limitBytes)) {
        packs.push(pack);
        [pack, bytes] = [[], 0];
      }
      pack.push(file);
      bytes += file.size;
    }
    return pack.length ? [...packs, pack] : packs;
  };

  const post = (body, type, told, stop) => new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", api("documents?async=true"));
    if (type) request.setRequestHeader("Content-Type", type);
    request.upload.addEventListener("progress", (event) => told(event.total ? event.loaded / event.total : 0));
    request.addEventListener("load", () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* a proxy's page: the status says enough */ }
      resolve({ status: request.status, answer });
    });
    request.addEventListener("error", () => resolve({ status: 0, answer: {} }));
    request.addEventListener("abort", () => resolve({ status: -1, answer: {} }));
    stop.addEventListener("abort", () => request.abort());
    request.send(body);
  });

  const form = (files, collection, groups) => {
    const made = new FormData();
    made.append("collection", collection);
    if (groups) made.append("allowGroups", JSON.stringify(groups));
    for (const file of files) made.append("file", file, file.name);
    return made;
  };

  const why = ({ status, answer }) => {
    if (status === -1) return "Stopped. What was sent before is being taken in.";
    return answer.detail || answer.title || (status ? `The server answered ${status}. Try again.` : "The server did not answer. Look at the connection and try again.");
  };

  const openUpload = (button) => {
    const dialog = document.querySelector("#kn-upload-sheet").content.firstElementChild.cloneNode(true);
    const on = (selector) => dialog.querySelector(selector);
    const [fields, files, close, status, meter, trouble] = [on("form"), on("[type=file]"), on(".close"), on("[role=status]"), on(".meter i"), on("[role=alert]")];
    let sending = null;
    fields.elements.collection.value = button.dataset.collection;
    const groups = () => {
      const named = (fields.elements.groups?.value ?? "").split(",").map((name) => name.trim()).filter(Boolean);
      return named.length ? named : null; // left out, a document stays for those whom it was for
    };
    const complain = (text) => { trouble.textContent = text; trouble.hidden = !text; };

    // The page behind is drawn anew, and shows the job.
    const leaveTo = (collection, job) => {
      const sent = document.querySelector("#kn-upload [data-act=uploaded]");
      if (sent) { Object.assign(sent.dataset, { collection, job }); sent.click(); }
    };

    const begin = async (bodies) => {
      if (sending || !bodies.length || !fields.reportValidity()) return;
      const collection = fields.elements.collection.value.trim();
      sending = new AbortController();
      complain("");
      close.textContent = "Stop";
      dialog.dataset.sending = "";
      let [job, answer] = ["", null];
      for (const [number, body] of bodies.entries()) {
        const told = (share) => {
          const whole = (number + share) / bodies.length;
          meter.style.width = `${Math.round(whole * 100)}%`;
          status.textContent = `Sending ${Math.round(whole * 100)} %`;
        };
        told(0);
        answer = await post(body(collection), body.type, told, sending.signal);
        if (answer.status !== 202) break;
        job = answer.answer.jobId;
      }
      sending = null;
      delete dialog.dataset.sending;
      files.value = "";
      close.textContent = "Close";
      status.textContent = "";
      meter.style.width = "0";
      if (job) leaveTo(collection, job);
      if (answer.status === 202) dialog.close();
      else complain(why(answer));
    };
    const sendFiles = (chosen) => {
      const limitBytes = Number(dialog.dataset.limit);
      const large = [...chosen].filter((file) => file.size > limitBytes);
      if (large.length) return complain(`${large.map((file) => file.name).join(", ")}: larger than a file may be. Choose again without.`);
      begin(packed([...chosen], limitBytes).map((pack) => (collection) => form(pack, collection, groups())));
    };
    const sendUrls = () => {
      const urls = fields.elements.urls.value.split(/\s+/).filter(Boolean).map((url) => ({ url, allowGroups: groups() }));
      const body = (collection) => JSON.stringify({ collection, urls });
      begin(urls.length ? [Object.assign(body, { type: "application/json" })] : []);
    };

    const leave = () => (sending ? sending.abort() : dialog.close());
    files.addEventListener("change", () => sendFiles(files.files));
    fields.addEventListener("submit", (event) => { event.preventDefault(); if (fields.elements.urls.value.trim()) sendUrls(); else if (!sending) files.click(); });
    close.addEventListener("click", leave);
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); leave(); });
    dialog.addEventListener("close", () => { dialog.remove(); document.querySelector("#kn-upload [data-upload]")?.focus(); });
    const drop = on(".drop");
    for (const kind of ["dragover", "dragleave", "drop"]) {
      drop.addEventListener(kind, (event) => {
        event.preventDefault();
        drop.classList.toggle("over", kind === "dragover");
        if (kind === "drop") sendFiles(event.dataTransfer.files);
      });
    }
    document.body.append(dialog);
    dialog.showModal();
  };

  const searchAsOf = (version) => {
    const fields = document.querySelector("#kn-form");
    if (!fields) return;
    fields.elements.asof.value = version;
    document.querySelector("#kn-view input[value=search]").click();
    requestAnimationFrame(() => fields.elements.query.focus());
  };

  addEventListener("click", (event) => {
    const on = (selector) => event.target.closest && event.target.closest(selector);
    if (on("[data-upload]")) openUpload(on("[data-upload]"));
    if (on("[data-asof]")) searchAsOf(on("[data-asof]").dataset.asof);
  });
})();
