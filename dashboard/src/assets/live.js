// Keeps a page up to date: the coordinator sends the parts that changed, each with the id of what it replaces.
// Without it the page stands still and everything on it works.
"use strict";
const path = document.body.dataset.live, status = document.getElementById("live");
let source = null;

const say = text => { if (status && status.textContent !== text) status.textContent = text; };

// What somebody opened stays open, and what has the keyboard is not taken away.
function replace(fresh) {
  const old = document.getElementById(fresh.id);
  if (!old) return;
  const focus = old.contains(document.activeElement) ? document.activeElement : null;
  if (focus && focus.matches("input, textarea, select")) return;
  for (const open of old.querySelectorAll("details[open]")) {
    const same = open.id && fresh.querySelector("#" + CSS.escape(open.id));
    if (same) same.open = true;
  }
  const at = focus && [...old.querySelectorAll("a, button, summary, [tabindex]")].indexOf(focus);
  const scrolled = [...old.querySelectorAll(".scroll")].map(e => e.scrollLeft);
  old.replaceWith(fresh);
  fresh.querySelectorAll(".scroll").forEach((e, i) => { e.scrollLeft = scrolled[i] || 0; });
  if (focus) fresh.querySelectorAll("a, button, summary, [tabindex]")[at]?.focus({ preventScroll: true });
}

function open() {
  if (source || document.hidden || !path) return;
  source = new EventSource(path);
  source.onopen = () => say("live");
  source.onerror = () => say(source && source.readyState === EventSource.CLOSED ? "reload for news" : "reconnecting");
  source.addEventListener("part", event => {
    const made = document.createElement("template");
    made.innerHTML = event.data;
    [...made.content.children].forEach(replace);
  });
  source.addEventListener("gone", () => { source.close(); say("reload for news"); });
}

// A hidden page holds no connection.
function close() { if (source) { source.close(); source = null; } }
document.addEventListener("visibilitychange", () => document.hidden ? close() : open());
addEventListener("pagehide", close);
addEventListener("pageshow", open);
open();
