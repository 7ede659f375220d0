// Fetches /status once a second and shows it. Peers choose the file names, so
// these reach the page through textContent only.
"use strict";

const INTERVAL_MS = 1000; // between an answer and the next request
const TIMEOUT_MS = 5000;
const MAX_ENDED = 100;
const MAX_CLIENTS = 256;
const MAX_UPLOADS = 8000;
const SHOWN_UPLOADS = 300; // the oldest ones
const STUCK_SECONDS = 5; // without progress, as in boots.py

const TONES = {
  "booted": "good", "read": "good", "stored": "good", "loading": "busy",
  "probe only": "idle", "not found": "warn", "refused": "warn", "no configuration": "warn",
  "no kernel": "warn", "stuck": "bad", "timed out": "bad", "aborted": "bad", "failed": "bad",
};
const RANKS = { bad: 0, warn: 1, busy: 2 }; // these tones first, then by the last request
const PROBLEMS = ["bad", "warn"];
const ACTIVE = ["stuck", "loading"];
const SHOWN_NAMES = 3; // of missing files in one row

const id = (name) => document.getElementById(name);
const filter = id("filter");
const problems = id("problems");
let number = 0; // of the latest request that is shown
let uptime = 0;
let latest = null;
let answeredAt = null;
let ended = [];
let clients = new Map();
let uploads = new Map(); // by client and file
const samples = new Map(); // bytes of each running transfer, for its current rate

function element(kind, className, parent) {
  const node = document.createElement(kind);
  if (className) node.className = className;
  if (parent) parent.append(node);
  return node;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setTone(node, base, tone) {
  const name = tone ? `${base} ${tone}` : base;
  if (node.className !== name) node.className = name;
}

// Updates the children of `parent` to match `items`, in order. Children that
// stay are kept, so that an open timeline stays open and the focus stays.
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

function formatBytes(count) {
  if (count === null || count === undefined) return "";
  if (count < 1000) return `${count} B`;
  let unit = -1;
  do { count /= 1000; unit += 1; } while (count >= 999.5 && unit < 4);
  return `${count < 10 ? count.toFixed(1) : Math.round(count)} ${["kB", "MB", "GB", "TB", "PB"][unit]}`;
}

function formatDuration(seconds) {
  if (seconds < 0.0995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

const formatTime = (date) => date.toLocaleString("sv"); // 2026-11-29 06:50:24, local time
const zone = new Intl.DateTimeFormat([], { timeZoneName: "short" }).formatToParts()
  .find((part) => part.type === "timeZoneName").value;

const keyOfUpload = (upload) => `${upload.client} ${upload.file}`;
const keyOf = (transfer) =>
  `${transfer.direction} ${transfer.client} ${transfer.port} ${transfer.file}`;

// Sets the current rate: smoothed over the last answers, at first the mean.
function updateRates(running, now) {
  const keys = new Set();
  for (const transfer of running) {
    const key = keyOf(transfer);
    keys.add(key);
    const before = samples.get(key);
    let rate = transfer.rate;
    if (before && now > before.time && transfer.bytes >= before.bytes) {
      const seconds = (now - before.time) / 1000;
      rate = 0.5 * before.rate + 0.5 * (transfer.bytes - before.bytes) / seconds;
    }
    transfer.currentRate = isComplete(transfer) || transfer.idle > 2 ? 0 : rate;
    samples.set(key, { bytes: transfer.bytes, time: now, rate });
  }
  for (const key of samples.keys()) if (!keys.has(key)) samples.delete(key);
}

function makeIdentity(kind, row) {
  const cell = element(kind, "client", row);
  return { address: element("span", "mono", cell), hostname: element("bdi", "identity", cell),
    mac: element("span", "identity mono", cell) };
}

function updateIdentity(parts, host) {
  const client = clients.get(host);
  write(parts.address, host);
  write(parts.hostname, client?.hostname ?? "");
  write(parts.mac, client?.mac ?? "");
}

const isComplete = (transfer) => transfer.state === "dallying"; // it repeats its last ACK
const isStuck = (transfer) => transfer.idle > STUCK_SECONDS && !isComplete(transfer);

function makeRunning() {
  const row = element("li");
  const parts = row.parts = { row };
  parts.client = makeIdentity("span", row);
  parts.file = element("bdi", "file", row);
  const cell = element("span", "bar-cell", row);
  parts.bar = element("progress", "", cell);
  parts.bar.max = 100;
  parts.percent = element("span", "percent", row);
  parts.rate = element("span", "rate", row);
  parts.note = element("span", "note", row);
  return row;
}

function updateRunning(parts, transfer) {
  const stuck = isStuck(transfer);
  const percent = transfer.percent;
  updateIdentity(parts.client, transfer.client);
  write(parts.file, `${transfer.direction === "write" ? "↑ " : ""}${transfer.file}`);
  parts.bar.hidden = percent === null;
  if (percent !== null) parts.bar.value = percent;
  parts.bar.setAttribute("aria-label", `${transfer.file} by ${transfer.client}`);
  setTone(parts.bar, "", stuck ? "bad" : "");
  write(parts.percent, percent === null ? formatBytes(transfer.bytes) : `${Math.floor(percent)} %`);
  write(parts.rate, `${formatBytes(Math.round(transfer.currentRate))}/s`);
  setTone(parts.note, "note", stuck ? "bad" : "");
  write(parts.note, describeRunning(transfer, stuck));
}

function describeRunning(transfer, stuck) {
  const { state, age, block, blocks } = transfer;
  if (isComplete(transfer)) return "complete, repeats its last ACK";
  if (state === "opening") return `no answer yet, ${formatDuration(age)}`;
  const packet = transfer.direction === "read" ? "ACK" : "DATA";
  const position = blocks ? `block ${block} of ${blocks}` : `block ${block}`;
  if (stuck) return `${position}, last ${packet} ${formatDuration(transfer.idle)} ago`;
  const retransmits = transfer.retransmits ? `, ${transfer.retransmits} retransmitted` : "";
  const profile = transfer.profile ? `${transfer.profile}, ` : "";
  const window = `windowsize ${transfer.windowsize} × blksize ${transfer.blksize}`;
  return `${profile}${window}${retransmits}, ${formatDuration(age)}`;
}

function makeClient() {
  const row = element("li");
  const details = element("details", "", row);
  const summary = element("summary", "", details);
  const parts = row.parts = { details };
  parts.client = makeIdentity("span", summary);
  parts.text = element("bdi", "text", summary);
  parts.when = element("span", "when", summary);
  parts.chips = element("span", "chips", summary);
  parts.steps = element("ol", "steps", details);
  parts.previous = element("p", "previous", details);
  return row;
}

function stepTone(step) {
  if (!step.outcome) return step.idle > STUCK_SECONDS ? "bad" : "busy"; // it runs
  if (step.successful) return step.outcome === "probe" ? "idle" : "good";
  if (step.outcome === "refused") return step.kind === "config" || step.kind === "file" ? "idle" : "warn";
  return step.outcome === "replaced" ? "idle" : "bad";
}

function describeOutcome(step) {
  if (step.outcome === "probe") return "size probe";
  if (step.outcome === "refused" && step.code === 1) {
    const names = step.files.length > 1 ? `${step.files.length} not found` : "not found";
    return step.count > step.files.length ? `${names}, ${step.count} requests` : names;
  }
  return step.count > 1 ? `${step.count} ${step.outcome}` : step.outcome;
}

function chipText(step) {
  if (!step.outcome) return step.percent === null ? `${step.kind} …` : `${step.kind} ${Math.floor(step.percent)} %`;
  if (step.outcome === "probe") return "size probe";
  const count = step.files.length > 1 ? ` ×${step.files.length}` : "";
  if (step.outcome === "refused") return `${step.kind}${count} ${step.code === 1 ? "not found" : "refused"}`;
  return step.successful ? `${step.kind}${count}` : `${step.kind} ${step.outcome}`;
}

function makeStep() {
  const row = element("li");
  const parts = row.parts = {};
  parts.offset = element("span", "quiet num", row);
  parts.kind = element("span", "quiet", row);
  parts.file = element("bdi", "file", row);
  parts.outcome = element("span", "outcome", row);
  parts.size = element("span", "num size", row);
  parts.duration = element("span", "num duration quiet", row);
  return row;
}

function updateStep(parts, step) {
  write(parts.offset, `+${formatDuration(step.offset)}`);
  write(parts.kind, step.kind);
  write(parts.file, step.files.join("\n"));
  parts.file.style.whiteSpace = "pre-line";
  setTone(parts.outcome, step.outcome ? "outcome" : "outcome unfinished", stepTone(step));
  const detail = step.detail && !step.successful && step.code !== 1 ? `: ${step.detail}` : "";
  write(parts.outcome, step.outcome ? describeOutcome(step) + detail : describeRunning(step, isStuck(step)));
  const empty = step.outcome === "refused" || step.outcome === "probe";
  write(parts.size, empty ? "" : formatBytes(step.bytes));
  write(parts.duration, empty ? "" : formatDuration(step.seconds));
}

function makeChip() {
  const chip = element("span", "chip");
  chip.parts = { chip };
  return chip;
}

function updateChip(parts, step) {
  setTone(parts.chip, "chip", stepTone(step));
  write(parts.chip, chipText(step));
}

const position = (item) => item.position;
const numbered = (items) => items.map((item, index) => ({ ...item, position: index }));

function updateClient(parts, client) {
  const idle = client.idle + (performance.now() - client.updated) / 1000;
  const ago = idle < 60 ? `${Math.floor(idle)} s` : formatDuration(idle);
  updateIdentity(parts.client, client.client);
  write(parts.text, client.text);
  setTone(parts.text, "text", TONES[client.verdict] || "idle");
  const boots = client.boots > 1 ? `${client.boots} boots, ` : "";
  write(parts.when, `${boots}${idle < 2 ? "now" : `${ago} ago`}`);
  if (parts.shown === client) return; // only its age has changed
  parts.shown = client;
  const last = `Last packet: ${formatTime(new Date(Date.now() - 1000 * idle))} (${zone})`;
  write(parts.previous, client.previous_boot ? `${last}. Previous boot: ${client.previous_boot}` : last);
  const chips = numbered([...client.steps, ...client.running]);
  sync(parts.chips, chips, position, makeChip, updateChip);
  const steps = [...client.steps, ...client.running.map((transfer) => runningStep(client, transfer))];
  sync(parts.steps, numbered(steps), position, makeStep, updateStep);
}

// Describes a running transfer like a step that has ended.
function runningStep(client, transfer) {
  const [first] = client.steps;
  const bootAge = first ? first.ago + first.seconds : transfer.age;
  const offset = Math.max(0, bootAge - transfer.age);
  return { ...transfer, offset, files: [transfer.file], seconds: transfer.age };
}

const isMiss = (result) => result.outcome === "refused" && result.code === 1;

// Puts the missing names of a client in one row, unless it got an answer in between.
function collapse(results) {
  const rows = [];
  const latest = new Map(); // row of misses by client
  for (const result of results) { // the newest first
    const row = isMiss(result) ? latest.get(result.client) : undefined;
    if (row) row.all.push(result);
    else rows.push({ ...result, all: [result] });
    if (!isMiss(result)) latest.delete(result.client);
    else if (!row) latest.set(result.client, rows.at(-1));
  }
  return rows;
}

function makeEnded() {
  const row = element("tr");
  const parts = row.parts = {};
  parts.time = element("td", "time", row);
  parts.client = makeIdentity("td", row);
  const file = element("td", "file-cell", row);
  parts.direction = element("span", "quiet", file);
  parts.file = element("bdi", "file", file);
  parts.profile = element("span", "quiet", file);
  parts.served = element("bdi", "served", file);
  const outcome = element("td", "outcome", row);
  parts.outcome = element("span", "", outcome);
  parts.detail = element("bdi", "detail", outcome);
  parts.size = element("td", "num size", row);
  parts.duration = element("td", "num duration", row);
  parts.rate = element("td", "num rate", row);
  parts.blocks = element("td", "num blocks", row);
  parts.retransmits = element("td", "num retransmits", row);
  return row;
}

function updateEnded(parts, result) {
  const names = [...new Set(result.all.map((one) => one.file))];
  const more = names.length - SHOWN_NAMES;
  updateIdentity(parts.client, result.client);
  if (parts.shown === result.number) return;
  parts.shown = result.number;
  const refused = result.outcome === "refused";
  const renamed = result.served_name !== null;
  const hasDetail = result.detail && !result.successful && result.code !== 1;
  write(parts.time, formatTime(new Date(result.time)));
  write(parts.direction, result.direction === "write" ? "↑ " : "");
  write(parts.file, names.slice(0, SHOWN_NAMES).join("\n") + (more > 0 ? `\n… and ${more} more` : ""));
  parts.file.title = more > 0 ? names.join("\n") : "";
  write(parts.profile, result.profile ? ` ${result.profile}` : "");
  write(parts.served, renamed ? `as ${result.served_name} (${result.resolution_steps.join(", ")})` : "");
  parts.served.hidden = !renamed;
  setTone(parts.outcome, "", result.successful ? "good" : refused ? "warn" : "bad");
  const count = result.all.length > 1 ? `, ${result.all.length} requests` : "";
  const missing = names.length > 1 ? `${names.length} not found${count}` : `not found${count}`;
  write(parts.outcome, isMiss(result) ? missing : result.outcome);
  write(parts.detail, hasDetail ? ` ${result.detail}` : "");
  write(parts.size, refused ? "" : formatBytes(result.bytes));
  write(parts.duration, refused ? "" : formatDuration(result.seconds));
  write(parts.rate, refused || !result.bytes ? "" : `${formatBytes(result.rate)}/s`);
  write(parts.blocks, refused ? "" : `${result.windowsize} × ${result.blksize}`);
  write(parts.retransmits, result.retransmits ? String(result.retransmits) : "");
}

function makeUpload() {
  const row = element("tr");
  const parts = row.parts = {};
  parts.time = element("td", "time", row);
  parts.client = makeIdentity("td", row);
  parts.file = element("bdi", "file", element("td", "file-cell", row));
  parts.outcome = element("bdi", "", element("td", "outcome", row));
  parts.size = element("td", "num size", row);
  parts.age = element("td", "num", row);
  return row;
}

function updateUpload(parts, upload) {
  const age = Math.floor((Date.now() - new Date(upload.time)) / 1000);
  write(parts.age, formatDuration(Math.max(0, age)));
  updateIdentity(parts.client, upload.client);
  if (parts.shown === upload) return;
  parts.shown = upload;
  write(parts.time, formatTime(new Date(upload.time)));
  write(parts.file, upload.file);
  setTone(parts.outcome, "", upload.failed ? "bad" : "");
  write(parts.outcome, upload.failed ? `${formatTime(new Date(upload.failed))} ${upload.detail}` : "");
  write(parts.size, formatBytes(upload.bytes));
}

function makeDevice() {
  const row = element("tr");
  const parts = row.parts = {};
  parts.name = element("td", "client mono", row);
  parts.state = element("span", "", element("td", "outcome", row));
  parts.time = element("td", "time", row);
  parts.file = element("bdi", "file", element("td", "file-cell", row));
  parts.size = element("td", "num size", row);
  parts.age = element("td", "num", row);
  return row;
}

function updateDevice(parts, device) {
  const { time } = device;
  write(parts.name, device.name);
  setTone(parts.state, "", device.overdue ? "bad" : "good");
  const due = formatTime(new Date(device.due));
  write(parts.state, device.overdue ? `overdue since ${due}` : `due ${due}`);
  write(parts.time, time ? formatTime(new Date(time)) : "never");
  write(parts.file, device.file ?? "");
  write(parts.size, time ? formatBytes(device.bytes) : "");
  const age = Math.floor((Date.now() - new Date(time)) / 1000);
  write(parts.age, time ? formatDuration(Math.max(0, age)) : "");
}

function makeOrigin() {
  const row = element("tr");
  const parts = row.parts = {};
  parts.name = element("td", "client mono", row);
  const state = element("td", "outcome", row);
  parts.state = element("span", "", state);
  parts.detail = element("bdi", "detail", state);
  for (const name of ["questions", "hits", "misses", "not_modified", "stale_answers", "failures"]) {
    parts[name] = element("td", "num blocks", row);
  }
  parts.fetched_bytes = element("td", "num size", row);
  return row;
}

function updateOrigin(parts, origin) {
  write(parts.name, origin.name);
  setTone(parts.state, "", origin.available ? "good" : "bad");
  const since = origin.available ? "" : ` since ${formatTime(new Date(origin.unavailable_since))}`;
  write(parts.state, origin.available ? "available" : `does not answer${since}`);
  const failedAt = origin.last_failure_at && formatTime(new Date(origin.last_failure_at));
  write(parts.detail, failedAt ? ` last error ${failedAt}: ${origin.last_failure}` : "");
  for (const name of ["questions", "hits", "misses", "not_modified", "stale_answers", "failures"]) {
    write(parts[name], String(origin[name]));
  }
  write(parts.fetched_bytes, formatBytes(origin.fetched_bytes));
}

// Hidden without origins in the configuration.
function showOrigins(status) {
  id("section-origins").hidden = status.fetcher === null;
  sync(id("origins"), status.origins, (origin) => origin.name, makeOrigin, updateOrigin);
  write(id("count-origins"), String(status.origins.length));
  const { cache } = status;
  write(id("cache"), cache
    ? `Cache: ${formatBytes(cache.bytes)} of ${formatBytes(cache.max_bytes)}, ${cache.objects} objects, ${cache.evicted} evicted`
    : "The process that fetches from origins does not answer.");
}

function showCount(name, shown, all) {
  write(id(`count-${name}`), shown === all ? `${all}` : `${shown} of ${all}`);
  const none = id(`none-${name}`);
  none.hidden = shown > 0;
  write(none, all > 0 ? "Nothing matches the search." : none.dataset.empty ?? "");
}

const countSessions = (status, state) => status.sessions.read[state] + status.sessions.write[state];
const countRunning = (status) => countSessions(status, "running") + countSessions(status, "opening");

function showFacts(status) {
  document.title = `tftpd ${status.node}`;
  write(id("hostname"), status.node);
  for (const node of document.querySelectorAll(".zone")) write(node, `(${zone})`);
  const rate = status.running.reduce((sum, transfer) => sum + transfer.currentRate, 0);
  write(id("fact-running"), String(countRunning(status)));
  write(id("fact-opening"), String(countSessions(status, "opening")));
  write(id("fact-rate"), `${formatBytes(Math.round(rate))}/s`);
  write(id("fact-uptime"), formatDuration(Math.floor(status.uptime)));
  write(id("fact-listeners"), status.listeners.join("  "));
  const parts = [`tftpd ${status.version}`, `data plane: ${status.data_plane}`];
  if (status.config_file) parts.push(status.config_file);
  if (status.workers.length) parts.push(`${status.workers.length} workers`);
  const unresponsive = status.workers.filter((worker) => !worker.answers).length;
  if (unresponsive) parts.push(`${unresponsive} unresponsive`);
  const restarts = status.workers.reduce((sum, worker) => sum + worker.restarts, 0);
  if (restarts) parts.push(`${restarts} restarts`);
  write(id("about"), parts.join(", "));
}

// Hidden if there is none: most servers never resolve a name to another one.
function showResolvedNames(counts) {
  const used = Object.entries(counts).filter(([, count]) => count > 0);
  const line = id("resolved-names");
  line.hidden = used.length === 0;
  const text = used.map(([method, count]) => `${method} ${count}`).join(", ");
  write(line, `Files found by another name: ${text}`);
}

function show() {
  if (!latest) return;
  const text = filter.value.trim().toLowerCase();
  // Searches addresses, host names, MAC addresses, names of files, and verdicts.
  const matches = (item, files) => {
    const client = clients.get(item.client);
    return [item.client, client?.hostname, client?.mac, item.text, ...files]
      .some((value) => value?.toLowerCase().includes(text));
  };
  const isShown = (item, isProblem, files) => (isProblem || !problems.checked) && matches(item, files);
  const running = latest.running.filter((transfer) => isShown(transfer, isStuck(transfer), [transfer.file]))
    .sort((a, b) => isComplete(a) - isComplete(b) || isStuck(b) - isStuck(a) || b.age - a.age);
  sync(id("running"), running, keyOf, makeRunning, updateRunning);
  const complete = running.filter(isComplete).length;
  showCount("running", running.length - complete, countRunning(latest));
  if (complete) id("count-running").append(`, ${complete} complete`);

  const tone = (client) => TONES[client.verdict];
  const rank = (client) => RANKS[tone(client)] ?? 3;
  const filesOf = (client) => [...client.steps.flatMap((step) => step.files), ...client.running.map((one) => one.file)];
  const shown = [...clients.values()]
    .filter((client) => isShown(client, PROBLEMS.includes(tone(client)), filesOf(client)))
    .sort((a, b) => rank(a) - rank(b) || b.number - a.number);
  sync(id("clients"), shown, (client) => client.client, makeClient, updateClient);
  showCount("clients", shown.length, clients.size);

  const devices = latest.devices
    .filter((device) => (device.overdue || !problems.checked)
      && [device.name, device.network, device.mac, device.file].some((value) => value?.toLowerCase().includes(text)))
    .sort((a, b) => b.overdue - a.overdue || (a.time ?? "").localeCompare(b.time ?? ""));
  sync(id("devices"), devices, (device) => device.name, makeDevice, updateDevice);
  id("section-devices").hidden = latest.devices.length === 0;
  id("devices").parentElement.hidden = devices.length === 0;
  showCount("devices", devices.length, latest.devices.length);

  const stored = [...uploads.values()]
    .filter((upload) => isShown(upload, upload.failed, [upload.file]))
    .sort((a, b) => !a.failed - !b.failed || a.time.localeCompare(b.time))
    .slice(0, SHOWN_UPLOADS);
  sync(id("uploads"), stored, keyOfUpload, makeUpload, updateUpload);
  id("section-uploads").hidden = uploads.size === 0;
  id("uploads").parentElement.hidden = stored.length === 0;
  showCount("uploads", stored.length, uploads.size);

  const results = ended.filter((result) =>
    isShown(result, !result.successful, [result.file, result.served_name]));
  sync(id("ended"), collapse(results), (row) => row.all.at(-1).number, makeEnded, updateEnded);
  id("ended").parentElement.hidden = results.length === 0;
  showCount("ended", results.length, ended.length);
}

// Removes the oldest entries of a map.
function limitSize(map, size) {
  for (const key of map.keys()) {
    if (map.size <= size) break;
    map.delete(key);
  }
}

// Merges an answer. Returns false if everything must be fetched again.
function merge(status, since) {
  const now = performance.now();
  if (status.uptime < uptime || status.number < number) { // the daemon was restarted
    number = uptime = 0;
    return false;
  }
  uptime = status.uptime;
  number = status.number;
  latest = status;
  answeredAt = new Date();
  updateRates(status.running, now);
  if (since === 0) {
    ended = [];
    clients = new Map();
    uploads = new Map();
  }
  ended = status.ended.reverse().concat(ended).slice(0, MAX_ENDED);
  const active = status.running.filter((transfer) => !isComplete(transfer));
  for (const client of status.clients) {
    client.updated = now;
    client.running = active.filter((transfer) => transfer.client === client.client);
    clients.delete(client.client);
    clients.set(client.client, client);
  }
  for (const upload of status.uploads) {
    uploads.delete(keyOfUpload(upload));
    uploads.set(keyOfUpload(upload), upload);
  }
  limitSize(clients, MAX_CLIENTS);
  limitSize(uploads, MAX_UPLOADS);
  // A transfer that vanished without a result was lost with its worker: fetch everything.
  const present = new Set(status.clients.map((client) => client.client));
  for (const client of clients.values()) {
    if (ACTIVE.includes(client.verdict) && !present.has(client.client)) number = 0;
  }
  showFacts(status);
  showResolvedNames(status.resolved_names);
  showOrigins(status);
  return true;
}

function showState(text, tone) {
  const pill = id("state");
  setTone(pill, "pill", tone);
  write(pill, text);
}

async function refresh() {
  let delay = INTERVAL_MS;
  try {
    const since = number;
    const answer = await fetch(`status?since=${since}`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!answer.ok) throw new Error(String(answer.status));
    const status = await answer.json();
    if (merge(status, since)) showState(status.state, status.state === "serving" ? "good" : "warn");
    else delay = 0;
  } catch {
    // The text stays the same until the next answer, so a screen reader speaks it once.
    showState(latest ? `no answer since ${formatTime(answeredAt)}` : "no answer", "bad");
  }
  show();
  // A hidden page sends no requests.
  if (document.hidden) document.addEventListener("visibilitychange", refresh, { once: true });
  else setTimeout(refresh, delay);
}

const parameters = new URLSearchParams(location.hash.slice(1));
filter.value = parameters.get("search") ?? "";
problems.checked = parameters.has("problems");
filter.form.addEventListener("input", () => {
  if (filter.value) parameters.set("search", filter.value);
  else parameters.delete("search");
  if (problems.checked) parameters.set("problems", "only");
  else parameters.delete("problems");
  history.replaceState(null, "", parameters.size ? `#${parameters}` : location.pathname);
  show();
});
filter.form.addEventListener("submit", (event) => event.preventDefault());
refresh();
