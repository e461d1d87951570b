// The pages work without this file. It keeps them up to date, shows times in the
// reader's time zone, copies, closes menus, shows pictures large and videos from where a
// test begins, and adds keyboard shortcuts.

const relative = new Intl.RelativeTimeFormat("en", { style: "narrow", numeric: "always" });
const dates = "en-GB"; // 27 Nov 2026, 17:49: as the server writes them
const exact = new Intl.DateTimeFormat(dates, { dateStyle: "medium", timeStyle: "long" });
const short = new Intl.DateTimeFormat(dates, { dateStyle: "medium", timeStyle: "short" });
const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

function ago(at) {
  const s = Math.round((at - Date.now()) / 1000);
  if (Math.abs(s) < 2) return "now";
  const [unit, size] = units.find(([, size]) => Math.abs(s) >= size) ?? units[3];
  return Math.abs(s) > 30 * 86400 ? new Date(at).toLocaleDateString(dates, { dateStyle: "medium" }) : relative.format(Math.trunc(s / size), unit);
}

function span(ms) {
  const s = Math.trunc(ms / 1000);
  if (s < 60) return `${s} s`;
  const h = Math.trunc(s / 3600), m = Math.trunc(s / 60) % 60;
  return h ? `${h} h ${m} min` : `${m} min ${s % 60} s`;
}

// tick counts on how long what works has worked.
function tick() {
  for (const t of document.querySelectorAll("time[data-since]")) t.textContent = span(Math.max(0, Date.now() - Date.parse(t.dateTime)));
}

function tellTimes() {
  tick();
  for (const t of document.querySelectorAll("time[datetime]:not([data-since], [data-day])")) {
    const at = Date.parse(t.dateTime);
    const text = t.hasAttribute("data-exact") ? short.format(at) : t.hasAttribute("data-due") && at < Date.now() ? ago(at).replace("now", "any moment") : ago(at);
    if (t.textContent !== text) t.textContent = text;
    t.title = exact.format(at);
  }
}

// morph makes a node like another one and leaves alone what is alike: what is
// unfolded, focused, selected or typed stays so.
function morph(from, to) {
  if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName || from.id !== to.id) {
    from.replaceWith(to);
    return;
  }
  if (from.nodeType !== Node.ELEMENT_NODE) {
    if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
    return;
  }
  if (from.matches("form, input, textarea, select") && from.contains(document.activeElement)) return;
  for (const { name } of [...from.attributes]) {
    if (!to.hasAttribute(name) && name !== "open" && name !== "title") from.removeAttribute(name);
  }
  for (const { name, value } of to.attributes) {
    if (name !== "hidden" && from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  if (from.nodeName === "TIME") return;
  const known = new Map([...from.children].filter((c) => c.id).map((c) => [c.id, c]));
  let at = from.firstChild;
  for (const next of [...to.childNodes]) {
    const same = next.id && known.get(next.id);
    if (same && same !== at) from.insertBefore(same, at);
    const here = same || at;
    if (!here || (!same && here.id && here.id !== next.id)) {
      from.insertBefore(next, at);
      continue;
    }
    at = here.nextSibling;
    morph(here, next);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

let etag = null;
let failures = 0;

async function look() {
  const main = document.getElementById("main");
  const wait = Number(main.dataset.live) * 1000;
  if (!wait) return;
  await new Promise((done) => setTimeout(done, wait * 2 ** Math.min(failures, 5)));
  if (document.hidden) await new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
  try {
    const answer = await fetch(location.href.split("#")[0], { headers: { "Runbell-Live": "1", ...(etag && { "If-None-Match": etag }) }, cache: "no-store", redirect: "error" });
    if (answer.ok) {
      etag = answer.headers.get("ETag");
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.title = page.title;
      document.querySelector("link[rel=icon]").href = page.querySelector("link[rel=icon]").href;
      morph(main, page.getElementById("main"));
      dress();
    }
    failures = answer.ok || answer.status === 304 ? 0 : failures + 1;
  } catch {
    failures++;
  }
  document.getElementById("stale").hidden = failures < 2;
  look();
}

// dress shows what only works with this file.
function dress() {
  tellTimes();
  keepFilter();
  for (const b of document.querySelectorAll("[data-copy][hidden], [data-keys][hidden]")) b.hidden = false;
  for (const b of document.querySelectorAll("[data-no-script]")) b.hidden = true;
}

document.addEventListener("click", async (e) => {
  const b = e.target.closest("[data-copy]");
  if (!b) return;
  const from = document.getElementById(b.dataset.copy), label = b.textContent;
  const copied = navigator.clipboard ? await navigator.clipboard.writeText(from.textContent.trim()).then(() => true, () => false) : false;
  if (!copied) {
    for (let d = from.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
    getSelection().selectAllChildren(from); // without https there is no clipboard, but this
    document.execCommand("copy");
  }
  if (label === "Copied") return;
  b.textContent = "Copied";
  setTimeout(() => (b.textContent = label), 1500);
});

document.addEventListener("change", (e) => {
  // In a menu, the fields wait for its button.
  if (e.target.closest("form[data-submit]") && !e.target.closest(".menu")) e.target.form.requestSubmit();
});

// A form with a preview shows it while it is filled in.
let typing;
document.addEventListener("input", (e) => {
  const menu = e.target.closest("details[data-load]");
  if (menu) {
    clearTimeout(typing);
    typing = setTimeout(listProjects, 200, menu);
  }
  const form = e.target.closest("form[data-preview]");
  if (!form) return;
  clearTimeout(typing);
  typing = setTimeout(async () => {
    const answer = await fetch(form.dataset.preview, { method: "POST", body: new URLSearchParams(new FormData(form)) });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    morph(document.getElementById("preview"), page.getElementById("preview"));
    dress();
  }, 250);
});

// Empty filters stay out of the address.
document.addEventListener("submit", (e) => {
  if (e.target.method !== "get") return;
  for (const field of e.target.elements) if (field.name && !field.value) field.disabled = true;
});

// A menu closes when another opens, on Escape, and on a click beside it.
function closeMenus(except) {
  for (const m of document.querySelectorAll("details.menu[open]")) if (!m.contains(except)) m.open = false;
}

document.addEventListener("click", (e) => {
  closeMenus(e.target);
  if (e.target.closest("[data-keys]")) document.getElementById("shortcuts").showModal();
});

document.addEventListener("focusin", (e) => closeMenus(e.target));

// The switch between projects lists them when it opens, and while its field is filled in.
async function listProjects(menu) {
  const field = menu.querySelector("input");
  const answer = await fetch(menu.dataset.load + (field.value ? "?q=" + encodeURIComponent(field.value) : ""));
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  menu.querySelector(".choices").replaceChildren(...[...page.querySelectorAll("[data-project]")].slice(0, 12).map((a) => {
    const item = document.createElement("li"), link = document.createElement("a");
    [link.href, link.textContent] = [a.getAttribute("href"), a.textContent];
    item.append(link);
    return item;
  }));
}

function openedSwitch(menu) {
  listProjects(menu);
  menu.querySelector("input").focus();
}

document.addEventListener("toggle", (e) => {
  if (e.target.matches("details[data-load]") && e.target.open) openedSwitch(e.target);
}, true);

// It may have been opened before this script ran.
for (const menu of document.querySelectorAll("details[data-load][open]")) openedSwitch(menu);

// reveal unfolds what an element is in, and focuses it.
function reveal(element) {
  for (let d = element.parentElement.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
  element.focus();
  element.scrollIntoView({ block: "nearest" });
}

// Keys. What they go to is marked in the pages: rows, and among them failures.
function go(to, step) {
  const all = [...document.querySelectorAll(to)];
  const at = all.indexOf(document.activeElement);
  const next = all[at < 0 && step < 0 ? all.length - 1 : at + step];
  if (next) reveal(next);
}

// The viewer shows a picture large, or the video of a spec from where a test begins.
// What it shows is the link that was followed; without this file it leads to the file.
const viewer = document.getElementById("viewer");
let viewed = null;

function view(link) {
  const place = viewer.querySelector(".shown"), [file] = link.href.split("#"), video = link.dataset.view === "video";
  viewed = link;
  if (place.firstElementChild?.src !== file) {
    const shown = document.createElement(video ? "video" : "img");
    if (video) shown.controls = shown.autoplay = true;
    else shown.alt = "";
    shown.onerror = () => {
      const why = document.createElement("p");
      why.textContent = "This file cannot be shown. Open it to see why.";
      shown.replaceWith(why);
    };
    shown.src = file;
    place.replaceChildren(shown);
  }
  if (video && place.querySelector("video")) place.firstElementChild.currentTime = Number(link.hash.slice("#t=".length)) || 0;
  document.getElementById("viewer-title").textContent = link.dataset.caption;
  viewer.querySelector("a").href = link.href;
  viewer.querySelector(".share")?.setAttribute("hidden", "");
  for (const b of viewer.querySelectorAll("[data-step]")) b.disabled = !beside(Number(b.dataset.step));
  if (!viewer.open) viewer.showModal();
}

// beside is the link to the next picture, or to the next video if a video is shown;
// with another owner, the first one of the next failure.
function beside(step, failure) {
  const owner = (link) => link.closest(".failed-test, .test") ?? link;
  let all = [...document.querySelectorAll(`[data-view=${viewed.dataset.view}]`)];
  if (failure) all = all.filter((link, n) => link === viewed || (owner(link) !== owner(viewed) && (n === 0 || owner(all[n - 1]) !== owner(link))));
  return all[all.indexOf(viewed) + step];
}

function step(by, failure) {
  const next = beside(by, failure);
  if (next) view(next);
}

// viewFirst shows the first picture or video of the failure that has the focus.
function viewFirst(kind) {
  const at = document.activeElement, test = at.hash ? document.getElementById(at.hash.slice(1)) : at.closest(".failed-test, .test");
  const link = (test ?? document).querySelector(`[data-view=${kind}]`);
  if (link) view(link);
}

document.addEventListener("click", (e) => {
  const link = e.target.closest("a[data-view]");
  if (link && !(e.ctrlKey || e.metaKey || e.shiftKey)) {
    e.preventDefault();
    view(link);
  }
});

// share shows a link to what the viewer shows, for people who cannot sign in.
async function share() {
  const link = viewed, place = viewer.querySelector(".share"), says = place.querySelector("span"), shared = place.querySelector("code");
  const answer = await fetch(link.href.split("#")[0] + "/link").then((r) => (r.ok ? r.json() : null), () => null);
  if (link !== viewed) return;
  shared.textContent = answer ? answer.url + link.hash : "";
  says.textContent = answer ? `Anyone with this link sees the file until ${new Date(answer.expiresAt).toLocaleDateString(dates, { dateStyle: "medium" })}:` : "No link could be made. Reload the page and try again.";
  shared.hidden = place.querySelector("button").hidden = !answer;
  place.hidden = false;
}

viewer.addEventListener("click", (e) => {
  const button = e.target.closest("[data-step]");
  if (button) step(Number(button.dataset.step));
  else if (e.target.closest("[data-share]")) share();
  else if (e.target === viewer) viewer.close(); // beside it
});

viewer.addEventListener("close", () => {
  if (viewer.open) return; // it was opened again before this event came
  viewer.querySelector(".shown").replaceChildren();
  reveal(viewed);
});

const viewerKeys = { n: [1, true], "]": [1, true], p: [-1, true], "[": [-1, true], ArrowRight: [1], ArrowLeft: [-1] };
viewer.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || !Object.hasOwn(viewerKeys, e.key) || e.target.matches("video")) return;
  e.preventDefault();
  step(...viewerKeys[e.key]);
});

const keys = {
  j: () => go("[data-row]", 1),
  k: () => go("[data-row]", -1),
  n: () => go("[data-failure]", 1),
  p: () => go("[data-failure]", -1),
  "]": () => go("[data-failure]", 1),
  "[": () => go("[data-failure]", -1),
  N: () => document.querySelector("a[rel=next]")?.click(),
  P: () => document.querySelector("a[rel=prev]")?.click(),
  o: () => document.activeElement.matches("[data-row], [data-failure]") && document.activeElement.click(),
  s: () => viewFirst("picture"),
  v: () => viewFirst("video"),
  "/": () => document.querySelector("main input[type=search]")?.focus(),
  "?": () => document.getElementById("shortcuts").showModal(),
};

document.addEventListener("keydown", (e) => {
  if (e.key === "Escape") {
    const menu = document.activeElement.closest("details.menu[open]");
    closeMenus();
    if (menu) menu.querySelector("summary").focus();
    else if (e.target.matches("input[type=search]")) e.target.blur(); // so that the keys work again
  }
  if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]") || e.target.closest("input, textarea, select")) return;
  if (!Object.hasOwn(keys, e.key)) return;
  e.preventDefault();
  keys[e.key]();
});

// Links that lead back to a list keep its filter.
const kept = (path) => "filter:" + path;
function keepFilter() {
  const form = document.querySelector("main form.filters");
  if (form && new URL(form.action).pathname === location.pathname) sessionStorage.setItem(kept(location.pathname), location.search);
  for (const a of document.querySelectorAll("a[data-keep]")) {
    if (a.pathname !== location.pathname) a.search = sessionStorage.getItem(kept(a.pathname)) ?? a.search;
  }
}

// A link to something folded unfolds it.
function unfold() {
  const target = location.hash ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
  for (let d = target?.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
  if (target?.matches("details")) target.open = true;
  target?.scrollIntoView();
}

// On a narrow screen the tab of this page may be beyond the edge.
const tab = document.querySelector(".sub nav [aria-current]");
tab?.parentElement.scrollTo({ left: tab.offsetLeft - tab.parentElement.offsetLeft - 40 });

addEventListener("hashchange", unfold);
unfold();
dress();
setInterval(tellTimes, 10_000);
setInterval(tick, 1000);
look();
addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll("form[method=get] :disabled")) field.disabled = false;
});
