// The page's one script: keeps the list live, moves rows where the eye can follow, and answers the keyboard.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const list = $("list"), body = $("rows"), panel = $("panel"), filter = $("filter");
  const SILENCE_MS = 10000, MOVE_MS = 260, SEEN_AFTER_MS = 600, GLANCED_AFTER_MS = 10000, SETTLE_MS = 350;
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  // ---- Being live, and saying when it is not -------------------------------------------------------------------
  let lastSign = Date.now(), staleSince = null, retry = 1000, source = null, retryTimer = 0;
  const clockText = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });

  function stale(words) {
    if (staleSince === null) staleSince = lastSign;
    document.body.classList.add("is-stale");
    const note = $("stale");
    const text = words || `Not live since ${clockText(staleSince)}: times and order may be old. Connecting again by itself.`;
    if (note.textContent !== text) note.textContent = text;
    note.hidden = false;
  }
  function fresh() {
    lastSign = Date.now();
    retry = 1000;
    if (staleSince === null) return;
    staleSince = null;
    document.body.classList.remove("is-stale");
    $("stale").hidden = true;
  }
  async function ask(path) {
    const answer = await fetch(path, { cache: "no-store", headers: { accept: "text/html" } });
    if (answer.status === 401) location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
    if (!answer.ok) throw new Error(`${path} answered ${answer.status}`);
    return answer.text();
  }

  // ---- System view ----------------------------------------------------------------------------------------------
  if ($("system")) {
    setInterval(async () => {
      if (document.hidden) return;
      try {
        const parts = await ask("/system/parts");
        if (!$("system").contains(document.activeElement) && String(getSelection()) === "") $("system").innerHTML = parts;
        fresh();
      } catch { stale(); }
    }, 5000);
    return;
  }
  if (!list) return;

  // ---- Rows ------------------------------------------------------------------------------------------------------
  const rows = new Map();
  for (const row of body.children) rows.set(row.dataset.id, row);
  let arrival = list.dataset.arrival.split(" ").filter(Boolean);
  let order = list.dataset.order === "now" ? [...rows.keys()] : null;
  let mode = list.dataset.order;
  let hovered = null, pointerIn = false, current = null, settleTimer = 0;
  const height = () => { const row = body.firstElementChild; return row ? row.offsetHeight : 40; };
  const link = (row) => row && row.querySelector(".who a");
  const shown = () => [...body.children].filter((row) => !row.hidden);
  const wanted = () => (mode === "now" && order ? order : arrival).filter((id) => rows.has(id));

  function pins() {
    const focused = body.contains(document.activeElement) ? document.activeElement.closest(".row") : null;
    return [...new Set([hovered, focused].filter((row) => row && body.contains(row) && !row.hidden))];
  }

  // Puts the rows into their order. What is pointed at or focused keeps its place; everything else flows around it.
  function arrange(ignorePins = false) {
    const before = new Map(shown().map((row, index) => [row, index]));
    const held = ignorePins ? [] : pins().filter((row) => before.has(row)).sort((a, b) => before.get(a) - before.get(b));
    const target = wanted().map((id) => rows.get(id)).filter((row) => !row.hidden && !held.includes(row));
    const natural = new Map(wanted().map((id) => rows.get(id)).filter((row) => !row.hidden).map((row, index) => [row, index]));
    for (const row of held) target.splice(Math.min(before.get(row), target.length), 0, row);
    for (const row of body.children) if (row.classList.contains("held")) row.classList.remove("held");
    target.forEach((row, index) => {
      if (held.includes(row) && natural.has(row) && natural.get(row) !== index) row.classList.add("held");
    });
    const hidden = [...body.children].filter((row) => row.hidden);
    place([...target, ...hidden]);
    move(before, target);
    target.forEach((row, index) => row.setAttribute("aria-rowindex", index + 2));
    afterwards();
  }

  // Reorders the DOM without touching the focused row, which would lose its focus.
  function place(target) {
    const focused = body.contains(document.activeElement) ? document.activeElement.closest(".row") : null;
    const split = target.indexOf(focused);
    const run = (part, start, end) => {
      let at = start;
      for (const row of part) {
        if (row === at) { at = at.nextElementSibling; continue; }
        if (at && at !== end && at !== focused && at.nextElementSibling === row) {
          const displaced = at;
          at = row.nextElementSibling;
          body.append(displaced);
          continue;
        }
        body.insertBefore(row, at);
      }
    };
    if (split < 0) { run(target, body.firstElementChild, null); return; }
    run(target.slice(split + 1), focused.nextElementSibling, null);
    run(target.slice(0, split), body.firstElementChild, focused);
  }

  function move(before, target) {
    if (still.matches || document.hidden) return;
    const tall = height(), top = list.scrollTop, view = list.clientHeight;
    const inView = (index) => index !== undefined && index * tall > top - 2 * tall && index * tall < top + view + tall;
    target.forEach((row, index) => {
      const from = before.get(row);
      if (from === index || !(inView(from) || inView(index))) return;
      if (from === undefined) {
        row.animate([{ opacity: 0 }, { opacity: 1 }], { duration: MOVE_MS, easing: "ease-out" });
        return;
      }
      const far = Math.max(-view, Math.min(view, (from - index) * tall));
      row.animate([{ transform: `translateY(${far}px)`, zIndex: 1 }, { transform: "none", zIndex: 1 }], { duration: MOVE_MS, easing: "cubic-bezier(.2,.7,.2,1)" });
    });
  }

  // A row whose place or content changed keeps a dot until somebody looked at it.
  const marks = new Map();
  function mark(row) { row.classList.add("changed"); marks.set(row, Date.now()); }
  function seen(row) { if (marks.delete(row)) { row.classList.remove("changed"); offScreen(); } }
  function glance() {
    const now = Date.now(), top = list.scrollTop, bottom = top + list.clientHeight;
    for (const [row, since] of marks) {
      if (now - since > GLANCED_AFTER_MS && row.offsetTop >= top && row.offsetTop < bottom) seen(row);
    }
  }
  function offScreen() {
    let above = 0, below = 0;
    const top = list.scrollTop, bottom = top + list.clientHeight;
    for (const row of marks.keys()) {
      if (row.hidden || !row.isConnected) continue;
      if (row.offsetTop + row.offsetHeight <= top + 20) above += 1;
      else if (row.offsetTop >= bottom) below += 1;
    }
    const said = [above && `▲ ${above} changed above`, below && `▼ ${below} changed below`].filter(Boolean).join("   ");
    if ($("off-screen").textContent !== said) $("off-screen").textContent = said;
  }

  function parse(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    return [...template.content.children];
  }

  // Takes a new writing of a row into the row that stands, so that focus, pointer and picture stay.
  function rewrite(row, fresher) {
    const kept = ["changed", "selected", "held"].filter((name) => row.classList.contains(name));
    row.className = fresher.className;
    row.classList.add(...kept);
    row.dataset.sig = fresher.dataset.sig;
    row.dataset.word = fresher.dataset.word;
    [...fresher.children].forEach((cell, index) => {
      const mine = row.children[index];
      if (mine.innerHTML === cell.innerHTML) { mine.title = cell.title; return; }
      if (cell.classList.contains("who")) {
        const old = link(row), new_ = cell.querySelector("a");
        old.innerHTML = new_.innerHTML;
        for (const name of ["aria-label", "title"]) old.setAttribute(name, new_.getAttribute(name));
      } else {
        mine.innerHTML = cell.innerHTML;
        mine.title = cell.title;
      }
    });
  }

  function take(html) {
    for (const fresher of parse(html)) {
      const id = fresher.dataset.id, row = rows.get(id);
      if (!row) {
        rows.set(id, fresher);
        fresher.querySelector(".who a").tabIndex = -1;
        body.append(fresher);
        match(fresher);
        mark(fresher);
        announce(fresher, "new");
      } else if (row.dataset.sig !== fresher.dataset.sig || row.classList.contains("gone")) {
        const was = row.dataset.word;
        rewrite(row, fresher);
        match(row);
        mark(row);
        if (was !== row.dataset.word) announce(row, "now");
      }
    }
  }

  function announce(row, how) {
    if (row.dataset.word !== "STAT" && row.dataset.word !== "URGENT") return;
    $("announce").textContent = `${how} ${link(row).getAttribute("aria-label")}`;
  }

  let queue = Promise.resolve();
  async function update(told) {
    const ids = told.order.map(([id]) => String(id));
    const changed = Object.values(told.rows).join("");
    if (changed) take(changed);
    const missing = told.order.filter(([id, sig]) => { const row = rows.get(String(id)); return !row || row.dataset.sig !== sig || row.classList.contains("gone"); }).map(([id]) => id);
    if (missing.length) take(await ask(`/rows?ids=${missing.join(",")}`));
    order = ids;
    arrival = told.arrival.map(String);
    const now = new Set(ids);
    for (const [id, row] of rows) {
      if (now.has(id)) continue;
      rows.delete(id);
      marks.delete(row);
      if (pins().includes(row)) row.classList.add("gone");
      else row.remove();
    }
    offset = told.now - performance.now();
    $("stand").innerHTML = told.stand;
    $("empty").innerHTML = told.empty;
    $("empty").hidden = ids.length > 0;
    tick();
    keepGone();
    arrange();
    const open = openStudy();
    if (open) {
      const row = rows.get(open);
      const sign = row ? row.dataset.sig : "gone";
      if (panel.dataset.sig !== undefined && panel.dataset.sig !== sign) refreshPanel(open);
      panel.dataset.sig = sign;
    }
  }
  // A row that left the list while somebody pointed at it stays, struck out, until they leave it.
  function keepGone() { for (const row of [...body.querySelectorAll(".gone")]) if (!pins().includes(row)) row.remove(); }
  function settle() {
    clearTimeout(settleTimer);
    settleTimer = setTimeout(() => { keepGone(); arrange(); }, SETTLE_MS);
  }

  // ---- Waiting times tick ------------------------------------------------------------------------------------------
  let offset = Number(list.dataset.now) - performance.now();
  function waitText(ms) {
    const minutes = Math.max(0, Math.floor(ms / 60000)), two = (n) => String(n).padStart(2, "0");
    if (minutes < 100) return `${two(minutes)} min`;
    const hours = Math.floor(minutes / 60);
    return hours < 48 ? `${hours} h ${two(minutes % 60)}` : `${Math.floor(hours / 24)} d ${two(hours % 24)} h`;
  }
  function tick() {
    if (staleSince !== null) return;
    const now = offset + performance.now();
    for (const at of document.querySelectorAll("[data-arrived]")) {
      const text = waitText(now - Number(at.dataset.arrived));
      if (at.textContent !== text) at.textContent = text;
    }
  }
  setInterval(tick, 1000);

  // ---- The connection ----------------------------------------------------------------------------------------------
  function connect() {
    clearTimeout(retryTimer);
    if (source) source.close();
    source = new EventSource("/live");
    source.addEventListener("list", (event) => {
      const told = JSON.parse(event.data);
      queue = queue.then(() => update(told)).then(fresh).catch(() => lost());
    });
    source.addEventListener("pulse", (event) => { offset = JSON.parse(event.data).now - performance.now(); fresh(); });
    source.addEventListener("trouble", (event) => { lastSign = Date.now(); stale(`The list cannot be read: ${JSON.parse(event.data).words}`); });
    source.onerror = lost;
  }
  function lost() {
    if (source) source.close();
    source = null;
    stale();
    clearTimeout(retryTimer);
    retryTimer = setTimeout(() => { ask("/rows?ids=").then(connect, lost); }, retry);
    retry = Math.min(retry * 1.6, 8000);
  }
  setInterval(() => { if (source && Date.now() - lastSign > SILENCE_MS) lost(); }, 1000);
  addEventListener("pagehide", () => source && source.close());
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });

  // ---- Pointer and focus -------------------------------------------------------------------------------------------
  let seenTimer = 0;
  body.addEventListener("pointerover", (event) => {
    const row = event.target.closest(".row");
    if (row === hovered) return;
    hovered = row;
    clearTimeout(seenTimer);
    if (row) seenTimer = setTimeout(() => seen(row), SEEN_AFTER_MS);
    settle();
  });
  body.addEventListener("pointerleave", () => { hovered = null; clearTimeout(seenTimer); settle(); });
  body.addEventListener("focusin", (event) => {
    const row = event.target.closest(".row");
    if (!row) return;
    if (current && current !== row) link(current).tabIndex = -1;
    current = row;
    link(row).tabIndex = 0;
    setTimeout(() => { if (document.activeElement === link(row)) seen(row); }, SEEN_AFTER_MS);
  });
  body.addEventListener("focusout", settle);
  let activityTimer = 0;
  const active = () => { if (!activityTimer) activityTimer = setTimeout(() => { activityTimer = 0; glance(); }, 500); };
  for (const name of ["pointermove", "keydown", "wheel"]) addEventListener(name, active, { passive: true });
  let scrollFrame = 0;
  list.addEventListener("scroll", () => { if (!scrollFrame) scrollFrame = requestAnimationFrame(() => { scrollFrame = 0; offScreen(); }); }, { passive: true });

  function focusRow(row) {
    if (!row) return;
    link(row).focus({ preventScroll: true });
    const head = list.querySelector(".headings").offsetHeight, top = row.offsetTop, bottom = top + row.offsetHeight;
    if (top - head < list.scrollTop) list.scrollTop = top - head;
    else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  }
  function step(by) {
    const visible = shown();
    if (!visible.length) return;
    const at = current && body.contains(document.activeElement) ? visible.indexOf(current) : -1;
    const from = at >= 0 ? at : visible.indexOf(rows.get(openStudy()));
    focusRow(from < 0 ? visible[0] : visible[Math.max(0, Math.min(visible.length - 1, from + by))]);
  }

  // ---- Filter --------------------------------------------------------------------------------------------------------
  let words = [];
  function match(row) {
    const text = `${row.textContent} ${row.querySelector(".pid").title} ${row.querySelector(".accession").title}`.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
  function filterNow() {
    words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows.values()) match(row);
    arrange(true);
  }
  function afterwards() {
    const hidden = [...rows.values()].filter((row) => row.hidden);
    const stats = hidden.filter((row) => row.dataset.word === "STAT").length;
    const note = $("filter-note");
    note.hidden = hidden.length === 0;
    const text = `The filter hides ${hidden.length} of ${rows.size} studies${stats ? `, ${stats} of them STAT` : ""}. Esc in the filter shows them.`;
    if (!note.hidden && note.textContent !== text) note.textContent = text;
    offScreen();
  }
  filter.addEventListener("input", filterNow);
  filter.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { filter.value = ""; filterNow(); filter.blur(); event.stopPropagation(); }
    if (event.key === "Enter") step(0);
  });

  // ---- Arrival or now --------------------------------------------------------------------------------------------------
  function show(next) {
    mode = next;
    if (mode === "now" && !order) return location.assign(location.pathname);
    for (const name of ["arrival", "now"]) {
      if (name === mode) $(`by-${name}`).setAttribute("aria-current", "true");
      else $(`by-${name}`).removeAttribute("aria-current");
    }
    body.parentElement.setAttribute("aria-label", `Reading list, ${mode === "now" ? "first to read first" : "in order of arrival"}`);
    history.replaceState(null, "", mode === "now" ? location.pathname : "?order=arrival");
    arrange(true);
    if (current && document.activeElement === link(current)) focusRow(current);
  }
  for (const name of ["arrival", "now"]) $(`by-${name}`).addEventListener("click", (event) => { event.preventDefault(); show(name); });

  // ---- The selected study ------------------------------------------------------------------------------------------------
  const openStudy = () => { const head = panel.querySelector(".panel-head"); return head && !panel.hidden ? head.dataset.study : null; };
  let heatOn = !document.querySelector("#film.plain");
  function showSelected() {
    for (const row of body.querySelectorAll(".selected")) { row.classList.remove("selected"); link(row).removeAttribute("aria-current"); }
    const row = rows.get(openStudy());
    if (row) { row.classList.add("selected"); link(row).setAttribute("aria-current", "true"); }
    document.body.classList.toggle("has-panel", !panel.hidden);
    showHeat();
  }
  async function fill(path) {
    const open = [...panel.querySelectorAll("details")].map((one) => one.open);
    const scroll = [...panel.querySelectorAll(".findings-side, .facts-side")].map((one) => one.scrollTop);
    const same = path.includes(`/study/${openStudy()}/`);
    panel.innerHTML = await ask(path);
    panel.hidden = false;
    if (same) {
      [...panel.querySelectorAll("details")].forEach((one, index) => { one.open = Boolean(open[index]); });
      [...panel.querySelectorAll(".findings-side, .facts-side")].forEach((one, index) => { one.scrollTop = scroll[index] || 0; });
    }
    const row = rows.get(openStudy());
    panel.dataset.sig = row ? row.dataset.sig : "gone";
    showSelected();
  }
  async function openRow(row, push = true) {
    const id = row.dataset.id;
    try { await fill(`/study/${id}/panel`); } catch { location.assign(`/study/${id}`); return; }
    if (push) history.pushState({ study: id }, "", `/study/${id}${mode === "arrival" ? "?order=arrival" : ""}`);
    focusRow(row);
    seen(row);
  }
  function refreshPanel(id) {
    if (panel.contains(document.activeElement) && document.activeElement.matches("input")) return;
    const film = $("film"), chosen = panel.querySelector(".all-findings a[aria-current]");
    const query = film && chosen ? `?film=${film.dataset.film}&label=${chosen.dataset.label}` : "";
    fill(`/study/${id}/panel${query}`).catch(() => {});
  }
  function closePanel(push = true) {
    if (panel.hidden) return;
    const row = rows.get(openStudy());
    panel.hidden = true;
    panel.innerHTML = "";
    delete panel.dataset.sig;
    showSelected();
    if (push) history.pushState(null, "", mode === "arrival" ? "/?order=arrival" : "/");
    focusRow(row);
  }
  addEventListener("popstate", () => {
    const found = location.pathname.match(/^\/study\/(\d+)$/);
    if (found && rows.has(found[1])) openRow(rows.get(found[1]), false);
    else if (found) location.reload();
    else closePanel(false);
  });
  body.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (!row || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    openRow(row);
  });
  function showHeat() {
    const film = $("film"), toggle = $("heat-toggle");
    if (film) film.classList.toggle("plain", !heatOn);
    if (toggle) { toggle.setAttribute("aria-pressed", String(heatOn)); $("heat-state").textContent = heatOn ? "on" : "off"; }
  }
  function chooseFinding(chosen) {
    const film = $("film"), heat = $("heat"), label = chosen.dataset.label;
    if (!film || !heat || (chosen.dataset.film && chosen.dataset.film !== film.dataset.film)) {
      fill(`/study/${openStudy()}/panel?film=${chosen.dataset.film}&label=${label}`).then(() => {
        const again = panel.querySelector(`.all-findings a[data-label="${label}"]`);
        if (again) again.focus();
      }).catch(() => {});
      return;
    }
    heat.src = `/film/${film.dataset.film}/heat/${label}.png`;
    heat.alt = `Heat map for ${chosen.textContent}`;
    $("heat-label").textContent = chosen.textContent;
    for (const one of panel.querySelectorAll(".all-findings a")) one.removeAttribute("aria-current");
    chosen.setAttribute("aria-current", "true");
    for (const box of film.querySelectorAll(".box")) box.classList.toggle("chosen", box.dataset.label === label);
    heatOn = true;
    showHeat();
  }
  panel.addEventListener("click", (event) => {
    const target = event.target.closest("a");
    if (!target) return;
    if (target.id === "close-panel") { event.preventDefault(); closePanel(); }
    else if (target.id === "heat-toggle") { event.preventDefault(); heatOn = !heatOn; showHeat(); }
    else if (target.dataset.label) { event.preventDefault(); chooseFinding(target); }
    else if (target.closest(".films")) { event.preventDefault(); fill(`/study/${openStudy()}/panel${target.getAttribute("href")}`).catch(() => {}); }
  });

  // ---- Keys ----------------------------------------------------------------------------------------------------------------
  function help(open) { $("help").hidden = !open; $("help-button").setAttribute("aria-expanded", String(open)); }
  $("help-button").addEventListener("click", () => help($("help").hidden));
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.key === "Escape") {
      if (!$("help").hidden) help(false);
      else if (event.target.matches?.("input")) event.target.blur();
      else closePanel();
      return;
    }
    if (event.target.matches?.("input, textarea, select")) return;
    const keys = {
      j: () => step(1), k: () => step(-1), h: () => { if ($("heat-toggle")) { heatOn = !heatOn; showHeat(); } },
      a: () => show(mode === "now" ? "arrival" : "now"), "/": () => { filter.focus(); filter.select(); }, "?": () => help($("help").hidden),
    };
    const act = keys[event.key];
    if (act) { event.preventDefault(); act(); return; }
    if (event.target.id === "heat-toggle" && event.key === " ") { event.preventDefault(); event.target.click(); }
  });

  // ---- Begin ---------------------------------------------------------------------------------------------------------------
  [...body.children].forEach((row, index) => { link(row).tabIndex = index ? -1 : 0; row.setAttribute("aria-rowindex", index + 2); });
  current = body.firstElementChild;
  showSelected();
  connect();
})();
