// The page to talk to a model: it asks the server that it comes from, by OpenAI's API, and keeps all here.
"use strict";

const STORE = "colossi.chat", KEY = "colossi.key";
const $ = (id) => document.getElementById(id);
const DEFAULTS = { system: "", temperature: 0.7, tokens: 512, theme: "auto" };

let state = load();
let model = "", going = null; // the answer that is coming: {abort, message}

function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(STORE));
    if (Array.isArray(kept.conversations)) return { ...kept, settings: { ...DEFAULTS, ...kept.settings } };
  } catch { /* nothing is kept, or nothing that can be read */ }
  return { conversations: [], chosen: null, settings: { ...DEFAULTS } };
}

function keep() {
  try {
    localStorage.setItem(STORE, JSON.stringify(state));
  } catch (error) {
    notice(`This browser keeps no more: ${error.message}. Delete conversations.`);
  }
}

const conversation = () => state.conversations.find((each) => each.id === state.chosen);
const headers = () => {
  const key = sessionStorage.getItem(KEY);
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
};

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

// --- the server ----------------------------------------------------------------------------------------------

async function refusal(answer) { // what a server that refuses says, in one line
  let told = "";
  try {
    told = (await answer.json()).error.message;
  } catch { /* it did not say */ }
  const hint = answer.status === 401 ? " Give a key in the settings." : answer.status === 429 ? " Try again in a moment." : "";
  return `${told || `The server answers ${answer.status}.`}${hint}`;
}

async function* answerTo(messages, signal) { // pieces of text, then {finish}
  const { temperature, tokens, system } = state.settings;
  const asked = [...(system ? [{ role: "system", content: system }] : []), ...messages];
  const body = JSON.stringify({ model, messages: asked, temperature, max_tokens: tokens, stream: true });
  const answer = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body, signal });
  if (!answer.ok) throw new Error(await refusal(answer));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  while (true) {
    const { done, value } = await reader.read();
    if (done) throw new Error("The connection ended before the answer did.");
    held += value;
    const lines = held.split(/\r\n|\n|\r/);
    held = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const said = line.slice(5).trim();
      if (said === "[DONE]") return;
      const chunk = JSON.parse(said);
      if (chunk.error) throw new Error(chunk.error.message);
      const choice = chunk.choices && chunk.choices[0];
      if (choice && choice.delta && choice.delta.content) yield choice.delta.content;
      if (choice && choice.finish_reason) yield { finish: choice.finish_reason };
    }
  }
}

async function greet() { // which model there is, and whether it lets us in
  try {
    const answer = await fetch("v1/models", { headers: headers() });
    if (!answer.ok) throw new Error(await refusal(answer));
    model = (await answer.json()).data[0].id;
    $("model").textContent = model;
    notice("");
  } catch (error) {
    notice(error.message);
  }
}

// --- a turn --------------------------------------------------------------------------------------------------

async function send(text) {
  if (going || !text.trim()) return;
  if (!conversation()) begin();
  const current = conversation();
  if (!current.messages.length) current.title = text.trim().slice(0, 60);
  current.messages.push({ role: "user", content: text });
  await answer(current);
}

async function answer(current) {
  const asked = current.messages.filter((each) => !each.failed).map(({ role, content }) => ({ role, content }));
  const message = { role: "assistant", content: "", note: "" };
  const mine = going = { abort: new AbortController(), message };
  current.messages.push(message);
  notice("");
  draw();
  let drawn = 0;
  try {
    if (!model) await greet();
    for await (const piece of answerTo(asked, mine.abort.signal)) {
      mine.abort.signal.throwIfAborted(); // also what has come already
      if (piece.finish) message.note = piece.finish === "length" ? "cut off at the longest answer that the settings allow" : "";
      else message.content += piece;
      if (performance.now() - drawn > 40) { // the page is drawn 25 times a second, however fast tokens come
        drawn = performance.now();
        drawLast();
      }
    }
  } catch (error) {
    message.note = error.name === "AbortError" ? "stopped" : "failed";
    message.failed = error.name !== "AbortError" && !message.content;
    if (error.name !== "AbortError") notice(error.message);
  } finally {
    if (going === mine) going = null;
    keep();
    draw();
  }
}

function regenerate() {
  const current = conversation();
  if (going || !current) return;
  while (current.messages.at(-1)?.role === "assistant") current.messages.pop();
  if (current.messages.length) answer(current);
}

function stop() {
  going?.abort.abort();
}

function begin() {
  stop();
  const fresh = { id: crypto.randomUUID ? crypto.randomUUID() : String(Date.now() + Math.random()), title: "New chat", messages: [] };
  state.conversations.unshift(fresh);
  show(fresh.id);
}

function show(id) {
  if (id !== state.chosen) stop();
  state.chosen = id;
  drawer(false);
  keep();
  draw();
  $("text").focus();
}

function forget(id) {
  if (id === state.chosen) stop();
  state.conversations = state.conversations.filter((each) => each.id !== id);
  if (state.chosen === id) state.chosen = state.conversations[0]?.id ?? null;
  keep();
  draw();
}

// --- drawing -------------------------------------------------------------------------------------------------

function draw() {
  $("list").replaceChildren(...state.conversations.map(({ id, title }) => {
    const row = element("li", button(title, "name", () => show(id)), button("✕", "delete", () => forget(id)));
    row.lastChild.setAttribute("aria-label", `delete ${title}`);
    row.setAttribute("aria-current", id === state.chosen);
    return row;
  }));
  const messages = conversation()?.messages ?? [];
  $("messages").replaceChildren(...messages.map((message, at) => drawn(message, at === messages.length - 1)));
  $("messages").scrollTop = $("messages").scrollHeight;
  $("send").hidden = Boolean(going);
  $("stop").hidden = !going;
  const { theme } = state.settings;
  const dark = theme === "dark" || (theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

function drawLast() { // only the answer that is coming; who has scrolled up is left there
  const box = $("messages"), low = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
  if (box.lastChild && going && conversation()?.messages.at(-1) === going.message) box.lastChild.replaceWith(drawn(going.message, true));
  if (low) box.scrollTop = box.scrollHeight;
}

function drawn(message, last) {
  const body = element("div"), whole = element("div", body), comes = going?.message === message;
  body.className = "body";
  whole.className = `message ${message.role}${comes ? " going" : ""}`;
  if (message.role === "user") body.textContent = message.content;
  else body.append(markdown(message.content));
  if (message.role === "assistant" && !comes) {
    const under = element("div", button("Copy", "", () => navigator.clipboard.writeText(message.content)));
    under.className = "under";
    if (last) under.append(button("Regenerate", "regenerate", regenerate));
    if (message.note) under.append(element("span", message.note));
    whole.append(under);
  }
  return whole;
}

function button(text, name, does) {
  const made = element("button", text);
  made.type = "button";
  made.className = name;
  made.addEventListener("click", does);
  return made;
}

function drawer(open) {
  $("drawer").classList.toggle("open", open);
  $("menu").setAttribute("aria-expanded", open);
  if (open) $("new").focus();
}

// --- what people do ------------------------------------------------------------------------------------------

function settings() {
  const { settings } = state;
  for (const name of Object.keys(DEFAULTS)) $(name).value = settings[name];
  $("key").value = sessionStorage.getItem(KEY) || "";
  $("settings").showModal();
}

$("settings").addEventListener("close", () => {
  const number = (id, least, most) => Math.min(most, Math.max(least, Number($(id).value) || least));
  state.settings = { system: $("system").value, temperature: number("temperature", 0, 2),
    tokens: Math.round(number("tokens", 1, 1e6)), theme: $("theme").value };
  if ($("key").value) sessionStorage.setItem(KEY, $("key").value); else sessionStorage.removeItem(KEY);
  keep();
  draw();
  greet();
  $("text").focus();
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value;
  if (going) return;
  $("text").value = "";
  grow();
  send(text);
});
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});
function grow() {
  $("text").style.height = "auto";
  $("text").style.height = `${$("text").scrollHeight + 2}px`;
}
$("text").addEventListener("input", grow);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("settings").open) {
    if ($("drawer").classList.contains("open")) drawer(false); else stop();
  }
  if (event.altKey && event.key.toLowerCase() === "n") {
    event.preventDefault();
    begin();
  }
});
$("stop").addEventListener("click", stop);
$("new").addEventListener("click", begin);
$("menu").addEventListener("click", () => drawer(!$("drawer").classList.contains("open")));
$("messages").addEventListener("click", () => drawer(false));
$("open-settings").addEventListener("click", settings);
$("forget").addEventListener("click", () => {
  stop();
  state.conversations = [];
  state.chosen = null;
  keep();
  draw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
draw();
greet();
