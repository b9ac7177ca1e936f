"use strict";
// Reads /api/* again and again and shows it. Text from the server is only ever set as text.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const KEPT = 600;

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function draw(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// ---- numbers for people

function count(n) {
  if (n >= 1e9) return (n / 1e9).toFixed(2) + " G";
  if (n >= 1e6) return (n / 1e6).toFixed(2) + " M";
  if (n >= 1e4) return (n / 1e3).toFixed(1) + " k";
  return Number.isInteger(n) ? String(n) : n.toFixed(1);
}

function bytes(n) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
  return (unit === 0 ? n : n.toFixed(1)) + " " + units[unit];
}

function micros(us) {
  if (us >= 1e6) return (us / 1e6).toFixed(2) + " s";
  if (us >= 1e3) return (us / 1e3).toFixed(1) + " ms";
  return us + " µs";
}

function duration(s) {
  if (s < 0) return "never";
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor((s % 86400) / 3600) + " h";
}

const percent = (x) => x.toFixed(1) + " %";

// ---- tables

/** Columns: title, class, and the value of a row. */
function table(id, caption, columns, rows, none) {
  const element = $(id);
  element.replaceChildren();
  if (caption) element.append(make("caption", {}, caption));
  if (rows.length === 0) {
    element.append(make("tbody", {}, make("tr", {}, make("td", { class: "quiet" }, none))));
    return;
  }
  const head = columns.map(([title, kind]) => make("th", { scope: "col", class: kind === "number" ? "number" : "" }, title));
  const body = rows.map((row) => make("tr", {}, ...columns.map(([, kind, value]) => {
    const shown = value(row);
    return make("td", { class: typeof kind === "function" ? kind(row) : kind }, String(shown));
  })));
  element.append(make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body));
}

// ---- charts

const CHARTS = [
  { title: "Commands a second", show: count, series: [["all", "ops"]] },
  { title: "Latency of commands", show: micros, series: [["half below", "p50"], ["99 % below", "p99"], ["99.9 % below", "p999"]] },
  { title: "Memory", show: bytes, series: [["used", "used"], ["resident", "rss"]] },
  { title: "Look-ups a second", show: count, series: [["hits", "hits"], ["misses", "misses"]] },
  { title: "Keys gone a second", show: count, series: [["evicted", "evicted"], ["expired", "expired"]] },
  { title: "Network, bytes a second", show: bytes, series: [["in", "received"], ["out", "sent"]] },
];

let columns = [];
let rows = [];

function line(values, times, from, to, top) {
  let path = "";
  values.forEach((value, i) => {
    const x = ((times[i] - from) / (to - from)) * 600;
    const y = 105 - (top > 0 ? (value / top) * 95 : 0);
    path += (i === 0 ? "M" : "L") + x.toFixed(1) + " " + y.toFixed(1);
  });
  return path;
}

function chart({ title, show, series }) {
  const at = (name) => columns.indexOf(name);
  const times = rows.map((row) => row[0]);
  const to = times[times.length - 1];
  const from = Math.min(times[0], to - 60000);
  const all = series.map(([, name]) => rows.map((row) => row[at(name)]));
  const top = Math.max(0, ...all.flat());
  const now = series.map(([label], i) => label + " " + show(all[i][all[i].length - 1]));
  const svg = draw("svg", { viewBox: "0 0 600 120", preserveAspectRatio: "none", role: "img", "aria-label": title + ": now " + now.join(", ") + "; at most " + show(top) },
    draw("line", { x1: 0, y1: 105, x2: 600, y2: 105, class: "axis" }),
    draw("line", { x1: 0, y1: 10, x2: 600, y2: 10, class: "axis" }));
  all.forEach((values, i) => {
    svg.append(draw("path", { d: line(values, times, from, to, top), class: "series-" + i, "vector-effect": "non-scaling-stroke" }));
  });
  const legend = make("ul", { class: "legend" });
  now.forEach((text, i) => {
    const sign = draw("svg", { viewBox: "0 0 26 8", "aria-hidden": "true" }, draw("path", { d: "M0 4L26 4", class: "series-" + i, fill: "none", "stroke-width": "2" }));
    legend.append(make("li", {}, sign, text));
  });
  const span = duration(Math.round((to - from) / 1000));
  const note = make("span", { class: "quiet" }, "last " + span + (top > 0 ? ", up to " + show(top) : ""));
  return make("div", { class: "chart" }, make("h3", {}, title), note, svg, legend);
}

function showCharts() {
  if (rows.length < 2) {
    $("charts").replaceChildren(make("p", { class: "quiet" }, "Samples are being taken."));
  } else {
    $("charts").replaceChildren(...CHARTS.map(chart));
  }
}

// ---- this node

function showState(s) {
  columns = s.columns;
  rows = rows.concat(s.rows).slice(-KEPT);
  const role = s.is_replica ? "replica" : "master";
  const name = location.hostname + ":" + s.port;
  document.title = name + " · Hexad";
  $("title").textContent = name;
  const ready = s.not_ready.length === 0 ? "ready" : "not ready: " + s.not_ready.join("; ");
  $("subtitle").textContent = role + (s.cluster ? " in a cluster" : "") + " · " + ready + " · up for " + duration(s.uptime) + " · " + s.version;
  const last = rows.length > 0 ? rows[rows.length - 1] : null;
  const value = (column) => (last ? last[columns.indexOf(column)] : 0);
  const lookups = value("hits") + value("misses");
  const behind = s.replicas.length > 0 ? Math.max(...s.replicas.map((r) => r.behind)) : 0;
  const tiles = [
    ["Commands a second", count(value("ops")), ""],
    ["99 % take at most", micros(value("p99")), "half at most " + micros(value("p50"))],
    ["Memory", bytes(s.used), s.maxmemory > 0 ? percent((s.used / s.maxmemory) * 100) + " of " + bytes(s.maxmemory) + ", " + s.policy : "no limit"],
    ["Keys", count(s.keys), count(s.expiring) + " with a time to live"],
    ["Look-ups that hit", lookups > 0 ? percent((value("hits") / lookups) * 100) : "–", count(lookups) + " a second"],
    ["Clients", count(s.clients), count(s.blocked) + " wait"],
  ];
  if (s.replicas.length > 0) tiles.push(["Replicas", String(s.replicas.length), "at most " + bytes(behind) + " behind"]);
  if (s.master) tiles.push(["Link to the master", s.master.is_up ? "up" : "down", s.master.is_up ? "heard " + duration(s.master.heard) + " ago" : s.master.state]);
  $("tiles").replaceChildren(...tiles.map(([title, shown, more]) =>
    make("div", {}, make("dt", {}, title), make("dd", {}, shown, make("span", { class: "more" }, more)))));
  showCharts();
  $("replication-section").hidden = !s.master && s.replicas.length === 0;
  $("master").textContent = s.master ? "Follows " + s.master.address + "; the link is " + (s.master.is_up ? "up" : "down (" + s.master.state + ")") + "." : "";
  table("replicas", "", [
    ["Replica", "", (r) => r.address],
    ["State", (r) => (r.state === "online" ? "" : "bad"), (r) => r.state],
    ["Behind", "number", (r) => bytes(r.behind)],
    ["Heard", "number", (r) => duration(r.lag) + " ago"],
  ], s.replicas, "No replicas are attached.");
}

// ---- the cluster

/** A, B, ... Z, A2, B2, ... */
const letter = (i) => String.fromCharCode(65 + (i % 26)) + (i < 26 ? "" : String(Math.floor(i / 26) + 1));

function showCluster(c) {
  const known = c.nodes || [];
  $("cluster-section").hidden = known.length === 0;
  const owners = known.filter((n) => n.slot_count > 0).sort((a, b) => a.slots[0][0] - b.slots[0][0]);
  const names = new Map(owners.map((n, i) => [n.id, letter(i)]));
  const covered = owners.reduce((sum, n) => sum + n.slot_count, 0);
  const failed = owners.filter((n) => n.state === "failed");
  const told = owners.map((n) => names.get(n.id) + " has " + n.slot_count + (failed.includes(n) ? " and has failed" : "")).join(", ");
  const svg = draw("svg", { viewBox: "0 0 16384 44", preserveAspectRatio: "none", role: "img", "aria-label": "Slots: " + told + "; " + (16384 - covered) + " belong to nobody" });
  const marks = [];
  owners.forEach((n, i) => {
    for (const [first, last] of n.slots) {
      const [kind, sign, word] = failed.includes(n) ? ["owner-failed", "✖ ", ", failed"] : ["owner-" + (i % 3), "", ""];
      svg.append(draw("rect", { x: first, y: 0, width: last - first + 1, height: 44, class: "owner " + kind, "vector-effect": "non-scaling-stroke" }, draw("title", {}, names.get(n.id) + ": " + first + " to " + last + word)));
      if (last - first > 600) marks.push([(first + last + 1) / 2, sign + names.get(n.id)]);
    }
  });
  // Letters would be as wide as the bar is stretched.
  const over = draw("svg", { class: "over", "aria-hidden": "true" });
  for (const [x, text] of marks) over.append(draw("text", { x: ((x / 16384) * 100).toFixed(2) + "%", y: 28 }, text));
  const bar = make("div", { class: "bar" }, svg, over);
  const open = 16384 - covered;
  const gone = failed.map((n) => " " + names.get(n.id) + ", with " + n.slot_count + " of them, has failed.").join("");
  const words = (c.is_up ? "The cluster serves. " : "The cluster does not serve. ") + (open === 0 ? "All 16384 slots have an owner." : open + " of 16384 slots belong to nobody.") + gone;
  $("slots").replaceChildren(make("p", {}, words), bar);
  const sorted = owners.flatMap((n) => [n, ...known.filter((r) => r.master === n.id)]);
  const rest = known.filter((n) => !sorted.includes(n));
  table("nodes", "", [
    ["Slots", "", (n) => names.get(n.id) || ""],
    // Before what is long: a phone shows the first columns alone until they are moved.
    ["State", (n) => (n.state === "ok" ? "" : "bad"), (n) => n.state],
    ["Node", "", (n) => n.address + (n.is_me ? " (this)" : "")],
    ["Role", "", (n) => (n.is_replica ? "replica of " + (names.get(n.master) || (n.master || "?").slice(0, 8)) : "master")],
    ["Name", "", (n) => n.name],
    ["Number of slots", "number", (n) => (n.is_replica ? "" : n.slot_count)],
    ["Behind", "number", (n) => (n.is_replica ? bytes(n.behind || 0) : "")],
    ["Heard", "number", (n) => (n.is_me ? "" : n.heard < 0 ? "never" : duration(n.heard) + " ago")],
    ["Epoch", "number", (n) => n.epoch],
    ["Id", "", (n) => n.id.slice(0, 8)],
  ], sorted.concat(rest), "No nodes are known.");
}

// ---- the rest

function showFindings(d) {
  if (d.findings.length === 0) {
    $("findings").replaceChildren(make("p", { class: "quiet" }, "Nothing is found wrong."));
    return;
  }
  const signs = { critical: "✖ critical", warning: "▲ warning" };
  $("findings").replaceChildren(...d.findings.map((f) => make("div", { class: "finding " + f.severity },
    make("p", {}, make("strong", {}, signs[f.severity] || f.severity), f.text),
    make("p", { class: "quiet" }, f.advice + " (" + f.id + ")"))));
}

function showSlow(s) {
  $("slow-note").textContent = s.slower_than < 0 ? "It is off (slowlog-log-slower-than)." : "Commands that took more than " + micros(s.slower_than) + ", the latest first.";
  table("slow", "", [
    ["When", "", (e) => new Date(e.time * 1000).toLocaleTimeString([], { hour12: false })],
    ["Took", "number", (e) => micros(e.us)],
    ["Command", "long", (e) => e.command],
    ["Client", "", (e) => e.client],
  ], s.entries, "There are none.");
}

function showClients(c) {
  const clients = c.clients.map((text) => Object.fromEntries(text.split(" ").map((word) => {
    const at = word.indexOf("=");
    return [word.slice(0, at), word.slice(at + 1)];
  })));
  $("clients-note").textContent = c.total > clients.length ? "Those of " + c.total + " that take most memory." : c.total === 1 ? "One is connected." : c.total + " are connected.";
  table("clients", "", [
    ["Address", "", (c) => c.addr],
    ["Name", "", (c) => c.name],
    ["User", "", (c) => c.user],
    ["Last command", "", (c) => c.cmd],
    ["Idle", "number", (c) => duration(Number(c.idle))],
    ["Connected", "number", (c) => duration(Number(c.age))],
    ["Memory", "number", (c) => bytes(Number(c["tot-mem"]))],
    ["Database", "number", (c) => c.db],
    ["Flags", "", (c) => c.flags],
  ], clients, "Nobody is connected.");
}

function showKeys(k) {
  $("keys-note").textContent = k.seen + " keys were looked at (some perhaps more than once).";
  const key = ["Key", "long", (e) => (e.db > 0 ? "db" + e.db + " " : "") + e.key];
  table("biggest", "Biggest", [key, ["Type", "", (e) => e.type], ["Memory", "number", (e) => bytes(e.bytes)]], k.biggest, "There are no keys.");
  const heat = k.is_lfu ? ["Counter of uses", "number", (e) => e.heat] : ["Used", "number", (e) => duration(e.heat) + " ago"];
  table("hottest", "Hottest", [key, ["Type", "", (e) => e.type], heat], k.hottest, "There are no keys.");
}

// ---- asking

async function ask(path) {
  // Without the name and password that this page may have been called with, which browsers know by now.
  const answer = await fetch(location.origin + path, { cache: "no-store" });
  if (!answer.ok) throw Object.assign(new Error((await answer.text()).trim()), { refused: answer.status });
  return answer.json();
}

/** Asks again and again while the page is seen. What this user may not see is asked for once. */
function follow(path, everyMs, show, id) {
  const again = async () => {
    let next = everyMs;
    if (!document.hidden) {
      try {
        show(await ask(path()));
        if (id === "lost") $("lost").hidden = true;
      } catch (error) {
        if (error.refused === 403 && id !== "lost") {
          $(id).replaceChildren(make(id === "findings" ? "p" : "caption", {}, error.message));
          return;
        }
        if (id === "lost") {
          $("lost").hidden = false;
          $("lost").textContent = error.refused ? error.message : "The server does not answer. What is shown is from before.";
        }
        next = Math.max(everyMs, 3000);
      }
    }
    setTimeout(again, next);
  };
  again();
}

follow(() => "/api/state?since=" + (rows.length > 0 ? rows[rows.length - 1][0] : 0), 1000, showState, "lost");
follow(() => "/api/doctor", 5000, showFindings, "findings");
follow(() => "/api/cluster", 2000, showCluster, "nodes");
follow(() => "/api/slowlog", 5000, showSlow, "slow");
follow(() => "/api/clients", 5000, showClients, "clients");

$("sample").addEventListener("click", async () => {
  $("sample").disabled = true;
  try {
    showKeys(await ask("/api/keys"));
  } catch (error) {
    $("keys-note").textContent = error.message;
  }
  $("sample").disabled = false;
});
