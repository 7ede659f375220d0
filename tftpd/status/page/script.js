// Asks /status once a second and shows what it says. Names of files are the
// peers' text: they reach the page through textContent and nothing else.
"use strict";

const EACH = 1000; // ms between an answer and the next question
const MOST_ENDED = 100;
const MOST_CLIENTS = 256;
const STUCK = 5; // seconds without progress, as in boots.py

const TONES = {
  "booted": "good", "read": "good", "stored": "good", "loading": "busy",
  "probe only": "idle", "not found": "warn", "refused": "warn", "no configuration": "warn",
  "no kernel": "warn", "stuck": "bad", "timed out": "bad", "aborted": "bad", "failed": "bad",
};
const FIRST = { "stuck": 0, "loading": 1 }; // then by who was heard last

const id = (name) => document.getElementById(name);
const filter = id("filter");
let number = 0; // of the last report we know
let uptime = 0;
let latest = null;
let heardAt = null;
let ended = [];
let clients = new Map();
const seen = new Map(); // octets of each running transfer, to tell its rate now

function element(kind, className, parent) {
  const made = document.createElement(kind);
  if (className) made.className = className;
  if (parent) parent.append(made);
  return made;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function tone(node, base, name) {
  const wanted = name ? `${base} ${name}` : base;
  if (node.className !== wanted) node.className = wanted;
}

// Makes the children of `parent` those of `items`, in order; what stays is
// kept, so that an open timeline stays open and the focus where it is.
function sync(parent, items, key, make, update) {
  const old = new Map([...parent.children].map((child) => [child.key, child]));
  let next = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let child = old.get(name);
    if (!child) {
      child = make(item);
      child.key = name;
    }
    old.delete(name);
    update(child.parts, item);
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
  for (const child of old.values()) child.remove();
}

function octets(count) {
  if (count === null || count === undefined) return "";
  if (count < 1000) return `${count} B`;
  let unit = -1;
  do { count /= 1000; unit += 1; } while (count >= 999.5 && unit < 4);
  return `${count < 10 ? count.toFixed(1) : Math.round(count)} ${["kB", "MB", "GB", "TB", "PB"][unit]}`;
}

function duration(seconds) {
  if (seconds < 0.0995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

const clock = (date) => date.toLocaleTimeString([], { hour12: false });

const keyOf = (one) => `${one.direction} ${one.client} ${one.port} ${one.file}`;

// The rate since the last answer, with a little memory; the mean at first.
function rates(running, now) {
  const keys = new Set();
  for (const one of running) {
    const key = keyOf(one);
    keys.add(key);
    const before = seen.get(key);
    let rate = one.rate;
    if (before && now > before.at && one.octets >= before.octets) {
      rate = 0.5 * before.rate + 0.5 * (one.octets - before.octets) / ((now - before.at) / 1000);
    }
    one.now = one.state === "dallying" || one.idle > 2 ? 0 : rate;
    seen.set(key, { octets: one.octets, at: now, rate });
  }
  for (const key of seen.keys()) if (!keys.has(key)) seen.delete(key);
}

function makeRunning() {
  const row = element("li");
  const parts = row.parts = { row };
  parts.client = element("span", "client mono", row);
  parts.file = element("bdi", "file", row);
  const cell = element("span", "bar-cell", row);
  parts.bar = element("progress", "", cell);
  parts.bar.max = 100;
  parts.percent = element("span", "percent", row);
  parts.rate = element("span", "rate", row);
  parts.note = element("span", "note", row);
  return row;
}

function updateRunning(parts, one) {
  const stuck = one.idle > STUCK && one.state !== "dallying";
  write(parts.client, one.client);
  write(parts.file, `${one.direction === "write" ? "↑ " : ""}${one.file}`);
  parts.bar.hidden = one.percent === null;
  if (one.percent !== null) parts.bar.value = one.percent;
  parts.bar.setAttribute("aria-label", `${one.file} by ${one.client}`);
  tone(parts.bar, "", stuck ? "bad" : "");
  write(parts.percent, one.percent === null ? octets(one.octets) : `${Math.floor(one.percent)} %`);
  write(parts.rate, `${octets(Math.round(one.now))}/s`);
  tone(parts.note, "note", stuck ? "bad" : "");
  write(parts.note, note(one, stuck));
}

function note(one, stuck) {
  const what = one.direction === "read" ? "ACK" : "DATA";
  if (one.state === "dallying") return "done, repeats its last ACK";
  if (one.state === "opening") return `no answer yet, ${duration(one.age)}`;
  const block = one.blocks ? `block ${one.block} of ${one.blocks}` : `block ${one.block}`;
  if (stuck) return `${block}, last ${what} ${duration(one.idle)} ago`;
  const again = one.retransmits ? `, ${one.retransmits} again` : "";
  const profile = one.profile ? `${one.profile}, ` : "";
  return `${profile}${one.windowsize} × ${one.blksize}${again}, ${duration(one.age)}`;
}

function makeClient(one) {
  const row = element("li");
  const details = element("details", "", row);
  const summary = element("summary", "", details);
  const parts = row.parts = { details };
  parts.client = element("span", "client mono", summary);
  parts.text = element("bdi", "text", summary);
  parts.when = element("span", "when", summary);
  parts.way = element("span", "way", summary);
  parts.steps = element("ol", "steps", details);
  parts.before = element("p", "before", details);
  return row;
}

function stepTone(step) {
  if (!step.outcome) return step.idle > STUCK ? "bad" : "busy"; // it runs
  if (step.good) return step.outcome === "probe" ? "idle" : "good";
  if (step.outcome === "refused") return step.kind === "config" || step.kind === "file" ? "idle" : "warn";
  return step.outcome === "replaced" ? "idle" : "bad";
}

function stepWord(step) {
  if (step.outcome === "probe") return "size probe";
  if (step.outcome === "refused" && step.code === 1) return step.count > 1 ? `${step.count} not found` : "not found";
  return step.count > 1 ? `${step.count} ${step.outcome}` : step.outcome;
}

function chipText(step) {
  if (!step.outcome) return step.percent === null ? `${step.kind} …` : `${step.kind} ${Math.floor(step.percent)} %`;
  if (step.outcome === "probe") return "size probe";
  const many = step.count > 1 ? ` ×${step.count}` : "";
  if (step.outcome === "refused") return `${step.kind}${many} ${step.code === 1 ? "not found" : "refused"}`;
  return step.good ? `${step.kind}${many}` : `${step.kind} ${step.outcome}`;
}

function makeStep() {
  const row = element("li");
  const parts = row.parts = {};
  parts.at = element("span", "quiet num", row);
  parts.kind = element("span", "quiet", row);
  parts.file = element("bdi", "file", row);
  parts.outcome = element("span", "outcome", row);
  parts.size = element("span", "num size", row);
  parts.took = element("span", "num took quiet", row);
  return row;
}

function updateStep(parts, step) {
  write(parts.at, `+${duration(step.at)}`);
  write(parts.kind, step.kind);
  write(parts.file, step.files.join("\n"));
  parts.file.style.whiteSpace = "pre-line";
  tone(parts.outcome, "outcome", stepTone(step));
  const because = step.detail && !step.good && step.code !== 1 ? `: ${step.detail}` : "";
  write(parts.outcome, stepWord(step) + because);
  const dull = step.outcome === "refused" || step.outcome === "probe";
  write(parts.size, dull ? "" : octets(step.octets));
  write(parts.took, dull ? "" : duration(step.seconds));
}

function makeChip() {
  const chip = element("span", "chip");
  chip.parts = { chip };
  return chip;
}

function updateChip(parts, step) {
  tone(parts.chip, "chip", stepTone(step));
  write(parts.chip, chipText(step));
}

const position = (item) => item.position;
const numbered = (items) => items.map((item, at) => ({ ...item, position: at }));

function updateClient(parts, one) {
  const ago = one.heard + (performance.now() - one.at) / 1000;
  write(parts.client, one.client);
  write(parts.text, one.text);
  tone(parts.text, "text", TONES[one.verdict] || "idle");
  const boots = one.boots > 1 ? `${one.boots} boots, ` : "";
  write(parts.when, `${boots}${ago < 2 ? "now" : `${ago < 60 ? `${Math.floor(ago)} s` : duration(ago)} ago`}`);
  write(parts.before, one.before ? `The boot before: ${one.before}` : "");
  parts.before.hidden = !one.before;
  if (parts.shown === one) return; // nothing of it has changed but its age
  parts.shown = one;
  const steps = numbered(one.steps);
  sync(parts.way, numbered([...one.steps, ...one.running]), position, makeChip, updateChip);
  sync(parts.steps, steps, position, makeStep, updateStep);
}

function makeEnded() {
  const row = element("tr");
  const parts = row.parts = {};
  parts.time = element("td", "time", row);
  parts.client = element("td", "client mono", row);
  const file = element("td", "file-cell", row);
  parts.way = element("span", "quiet", file);
  parts.file = element("bdi", "file", file);
  parts.profile = element("span", "quiet", file);
  parts.served = element("bdi", "served", file);
  const outcome = element("td", "outcome", row);
  parts.outcome = element("span", "", outcome);
  parts.detail = element("bdi", "detail", outcome);
  parts.size = element("td", "num size", row);
  parts.took = element("td", "num took", row);
  parts.rate = element("td", "num rate", row);
  parts.blocks = element("td", "num blocks", row);
  parts.again = element("td", "num again", row);
  return row;
}

function updateEnded(parts, one) {
  if (parts.shown === one) return;
  parts.shown = one;
  const refused = one.outcome === "refused";
  write(parts.time, clock(new Date(one.time)));
  write(parts.client, one.client);
  write(parts.way, one.direction === "write" ? "↑ " : "");
  write(parts.file, one.file);
  write(parts.profile, one.profile ? ` ${one.profile}` : "");
  write(parts.served, one.served === null ? "" : `as ${one.served} (${one.served_by.join(", ")})`);
  parts.served.hidden = one.served === null;
  tone(parts.outcome, "", one.good ? "good" : refused ? "warn" : "bad");
  write(parts.outcome, refused && one.code === 1 ? "not found" : one.outcome);
  write(parts.detail, !one.detail || one.good || one.code === 1 ? "" : ` ${one.detail}`);
  write(parts.size, refused ? "" : octets(one.octets));
  write(parts.took, refused ? "" : duration(one.seconds));
  write(parts.rate, refused || !one.octets ? "" : `${octets(one.rate)}/s`);
  write(parts.blocks, refused ? "" : `${one.windowsize} × ${one.blksize}`);
  write(parts.again, one.retransmits ? String(one.retransmits) : "");
}

function count(name, shown, all) {
  write(id(`count-${name}`), shown === all ? `${all}` : `${shown} of ${all}`);
  const none = id(`none-${name}`);
  none.hidden = shown > 0;
}

function facts(said) {
  const total = (state) => said.sessions.read[state] + said.sessions.write[state];
  write(id("fact-running"), String(total("running")));
  write(id("fact-opening"), String(total("opening")));
  write(id("fact-rate"), `${octets(Math.round(said.running.reduce((sum, one) => sum + one.now, 0)))}/s`);
  write(id("fact-uptime"), duration(Math.floor(said.uptime)));
  write(id("fact-listeners"), said.listeners.join("  "));
  const silent = said.workers.filter((worker) => !worker.answers).length;
  const restarts = said.workers.reduce((sum, worker) => sum + worker.restarts, 0);
  const workers = said.workers.length
    ? `, ${said.workers.length} workers${silent ? `, ${silent} silent` : ""}${restarts ? `, ${restarts} restarts` : ""}`
    : "";
  write(id("about"), `tftpd ${said.version}${said.settings ? `, ${said.settings}` : ""}${workers}`);
}

// Only where a name was not the file's: most servers never need the line.
function names(found) {
  const ways = Object.entries(found).filter(([, count]) => count > 0);
  const line = id("names");
  line.hidden = ways.length === 0;
  write(line, `Files found by another name: ${ways.map(([way, count]) => `${way} ${count}`).join(", ")}`);
}

function show() {
  if (!latest) return;
  const wanted = filter.value.trim().toLowerCase();
  const mine = (one) => one.client.toLowerCase().includes(wanted);
  const running = latest.running.filter(mine)
    .sort((a, b) => (b.idle > STUCK) - (a.idle > STUCK) || b.age - a.age);
  sync(id("running"), running, keyOf, makeRunning, updateRunning);
  const sessions = Object.values(latest.sessions).flatMap(Object.values);
  count("running", running.length, sessions.reduce((sum, one) => sum + one, 0));

  const rank = (one) => FIRST[one.verdict] ?? 2;
  const known = [...clients.values()].filter(mine).sort((a, b) => rank(a) - rank(b) || b.number - a.number);
  sync(id("clients"), known, (one) => one.client, makeClient, updateClient);
  count("clients", known.length, clients.size);

  const over = ended.filter(mine);
  sync(id("ended"), over, (one) => one.number, makeEnded, updateEnded);
  id("ended").parentElement.hidden = over.length === 0;
  count("ended", over.length, ended.length);
}

function take(said, since) {
  const now = performance.now();
  if (said.uptime < uptime || said.number < number) { // another daemon: begin anew
    number = uptime = 0;
    return false;
  }
  uptime = said.uptime;
  number = said.number;
  latest = said;
  heardAt = new Date();
  rates(said.running, now);
  if (since === 0) {
    ended = [];
    clients = new Map();
  }
  ended = said.ended.reverse().concat(ended).slice(0, MOST_ENDED);
  for (const one of said.clients) {
    one.at = now;
    one.running = said.running.filter((other) => other.client === one.client && other.state !== "dallying");
    clients.delete(one.client);
    clients.set(one.client, one);
  }
  for (const client of clients.keys()) {
    if (clients.size <= MOST_CLIENTS) break;
    clients.delete(client);
  }
  // What ran and is gone without a report went with its worker: ask for all.
  const heard = new Set(said.clients.map((one) => one.client));
  for (const one of clients.values()) if (one.verdict in FIRST && !heard.has(one.client)) number = 0;
  facts(said);
  names(said.names);
  return true;
}

function state(text, name) {
  const pill = id("state");
  tone(pill, "pill", name);
  write(pill, text);
}

async function ask() {
  let wait = EACH;
  try {
    const since = number;
    const answer = await fetch(`status?since=${since}`, { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(String(answer.status));
    const said = await answer.json();
    if (take(said, since)) state(said.state, said.state === "serving" ? "good" : "warn");
    else wait = 0;
  } catch {
    // The same words until it answers again: a screen reader says them once.
    state(latest ? `no answer since ${clock(heardAt)}` : "no answer", "bad");
  }
  show();
  // A page that nobody sees asks for nothing.
  if (document.hidden) document.addEventListener("visibilitychange", ask, { once: true });
  else setTimeout(ask, wait);
}

filter.value = decodeURIComponent(location.hash.slice(1));
filter.addEventListener("input", () => {
  history.replaceState(null, "", filter.value ? `#${encodeURIComponent(filter.value)}` : location.pathname);
  show();
});
filter.form.addEventListener("submit", (event) => event.preventDefault());
ask();
