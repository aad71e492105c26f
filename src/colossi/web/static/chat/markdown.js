// Markdown as nodes of the page. It never makes HTML of text: every piece of an answer becomes a text node, so
// nothing in an answer can run. What it does not know stays as it was written.
//
// Knows headings, paragraphs, lists, quotes, fenced code, tables, rules, emphasis, code, links, line breaks.
"use strict";

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])([ \t]+|$)(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const TABLE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const SAFE = /^(https?:\/\/|mailto:)/i; // where a link may lead

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

function markdown(text) { // a fragment
  const found = document.createDocumentFragment();
  found.append(...blocks(text.replace(/\r\n?/g, "\n").replace(/\n$/, "").split("\n")));
  return found;
}

function blocks(lines) {
  const found = [];
  for (let at = 0; at < lines.length;) {
    const line = lines[at];
    let match;
    if (!line.trim()) at++;
    else if ((match = FENCE.exec(line))) {
      const [, fence, word] = match, code = [];
      const end = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}[ \\t]*$`);
      for (at++; at < lines.length && !end.test(lines[at]); at++) code.push(lines[at]);
      at++;
      found.push(codeBlock(code.map((each) => `${each}\n`).join(""), word.trim().split(/\s+/)[0]));
    } else if ((match = HEADING.exec(line))) {
      found.push(element(`h${match[1].length}`, ...inline(match[2] || "")));
      at++;
    } else if (RULE.test(line)) {
      found.push(element("hr"));
      at++;
    } else if (QUOTE.test(line)) {
      const inside = [];
      for (; at < lines.length && (QUOTE.test(lines[at]) || (lines[at].trim() && !begins(lines[at]))); at++) {
        inside.push(QUOTE.test(lines[at]) ? QUOTE.exec(lines[at])[1] : lines[at]);
      }
      found.push(element("blockquote", ...blocks(inside)));
    } else if (ITEM.test(line)) {
      const [list, next] = listFrom(lines, at);
      found.push(list);
      at = next;
    } else if (line.includes("|") && at + 1 < lines.length && TABLE.test(lines[at + 1]) && cells(line).length === cells(lines[at + 1]).length) {
      const [table, next] = tableFrom(lines, at);
      found.push(table);
      at = next;
    } else {
      const inside = [];
      do inside.push(lines[at++].replace(/^[ \t]+/, ""));
      while (at < lines.length && lines[at].trim() && !begins(lines[at]));
      found.push(element("p", ...inline(inside.join("\n").replace(/[ \t]+$/, ""))));
    }
  }
  return found;
}

const begins = (line) => FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line)
  || (ITEM.test(line) && ITEM.exec(line)[4] && (!/^\d/.test(ITEM.exec(line)[2]) || /^1[.)]/.test(ITEM.exec(line)[2])));

function listFrom(lines, at) {
  const kind = (mark) => /\d/.test(mark) ? mark.slice(-1) : mark;
  const first = ITEM.exec(lines[at]), list = element(/\d/.test(first[2]) ? "ol" : "ul"), items = [];
  const number = parseInt(first[2], 10);
  if (number >= 0 && number !== 1) list.start = number;
  let loose = false;
  while (at < lines.length) {
    const match = ITEM.exec(lines[at]);
    if (!match || kind(match[2]) !== kind(first[2]) || RULE.test(lines[at])) break;
    const deep = match[1].length + match[2].length + (match[3].length > 4 || !match[4] ? 1 : match[3].length);
    const inside = [match[3].length > 4 ? match[3].slice(1) + match[4] : match[4]];
    for (at++; at < lines.length; at++) {
      const indent = /^ */.exec(lines[at])[0].length;
      if (!lines[at].trim()) {
        const next = lines.slice(at).find((line) => line.trim());
        if (next === undefined || /^ */.exec(next)[0].length < deep) break;
        inside.push("");
      } else if (indent >= deep) inside.push(lines[at].slice(deep));
      else if (!begins(lines[at]) && !ITEM.test(lines[at]) && inside.at(-1).trim() && !FENCE.test(inside[0])) inside.push(lines[at].trim());
      else break;
    }
    if (inside.some((line, index) => !line.trim() && index > 0 && index < inside.length - 1)) loose = true;
    items.push(inside);
    const after = lines.slice(at).findIndex((line) => line.trim());
    if (after > 0) {
      const next = ITEM.exec(lines[at + after]);
      if (!next || kind(next[2]) !== kind(first[2])) break;
      loose = true;
      at += after;
    }
  }
  for (const inside of items) {
    const item = element("li");
    for (const block of blocks(inside)) {
      if (!loose && block.tagName === "P") item.append(...block.childNodes); else item.append(block);
    }
    list.append(item);
  }
  return [list, at];
}

function cells(line) { // of a row; a bar behind a backslash is none
  const inside = line.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1");
  return inside.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function tableFrom(lines, at) {
  const heads = cells(lines[at]);
  const sides = cells(lines[at + 1]).map((rule) => rule.endsWith(":") ? (rule.startsWith(":") ? "center" : "right") : rule.startsWith(":") ? "left" : "");
  const row = (names, values) => element("tr", ...heads.map((_, place) => {
    const cell = element(names, ...inline(values[place] || ""));
    if (sides[place]) cell.style.textAlign = sides[place];
    return cell;
  }));
  const table = element("table", element("thead", row("th", heads))), body = element("tbody");
  for (at += 2; at < lines.length && lines[at].trim() && !begins(lines[at]); at++) body.append(row("td", cells(lines[at])));
  if (body.childNodes.length) table.append(body);
  return [table, at];
}

function inline(text) {
  const found = [];
  let plain = "";
  const give = (...nodes) => {
    if (plain) found.push(document.createTextNode(plain));
    plain = "";
    found.push(...nodes);
  };
  for (let at = 0; at < text.length;) {
    const rest = text.slice(at);
    let match;
    if ((match = /^\\([!-/:-@[-`{-~])/.exec(rest))) plain += match[1];
    else if ((match = /^(`+)([^`]|[^`][^]*?[^`])\1(?!`)/.exec(rest))) {
      const code = match[2].replaceAll("\n", " ");
      give(element("code", /^ .*[^ ].* $/.test(code) ? code.slice(1, -1) : code));
    } else if ((match = /^`+/.exec(rest))) plain += match[0];
    else if ((match = /^(?: {2,}|\\)\n[ \t]*/.exec(rest))) give(element("br"), "\n");
    else if ((match = /^!?\[((?:[^\[\]\\]|\\.|\[[^\[\]]*\])*)\]\(\s*<?([^\s<>()]*(?:\([^\s()]*\)[^\s<>()]*)*)>?(?:\s+"[^"]*")?\s*\)/.exec(rest)) && SAFE.test(match[2])) {
      give(link(match[2], ...inline(match[1])));
    } else if ((match = /^<(https?:\/\/[^\s<>]+)>/.exec(rest))) give(link(match[1], match[1]));
    else if ((match = /^~~(?=\S)([^]*?\S)~~/.exec(rest))) give(element("s", ...inline(match[1])));
    else if ((match = emphasis(rest, text[at - 1] || ""))) give(match.node);
    else {
      match = /^[^]/u.exec(rest);
      plain += match[0];
    }
    at += match[0].length;
  }
  give();
  return found;
}

function emphasis(rest, before) { // *one*, **two**, ***three***; underscores not inside a word
  const match = /^(\*+(?!\*)|_+(?!_))(?=\S)/.exec(rest);
  if (!match || match[1].length > 3 || (match[1][0] === "_" && /\w/.test(before))) return null;
  const sign = match[1][0], opened = match[1].length;
  const ends = (count) => closing(rest, sign.repeat(count), count, opened);
  let count = opened, end = ends(opened);
  if (opened === 3 && end < 0) { // the one that ends last is outside
    count = ends(1) > ends(2) ? 1 : 2;
    end = ends(count);
  }
  if (end < 0) return null;
  const inside = inline(rest.slice(count, end));
  const node = count === 1 ? element("em", ...inside) : count === 2 ? element("strong", ...inside)
    : element("em", element("strong", ...inside));
  return { 0: rest.slice(0, end + count), node };
}

function closing(rest, mark, count, opened) { // where the same mark ends it, code and longer marks left out; -1
  for (let at = opened; at < rest.length; at++) {
    if (rest[at] === "\\") at++;
    else if (rest[at] === "`") {
      const code = /^(`+)[^]*?[^`]\1(?!`)/.exec(rest.slice(at));
      at += (code ? code[0].length : 1) - 1;
    } else if (rest[at] === mark[0]) {
      const run = /^(\*+|_+)/.exec(rest.slice(at))[0].length;
      const ends = /\S/.test(rest[at - 1]) && (mark[0] === "*" || !/\w/.test(rest[at + run] || ""));
      if (ends && (run === count || (run > count && run === 3))) return at + run - count;
      at += run - 1;
    }
  }
  return -1;
}

function link(to, ...children) {
  const made = element("a", ...children);
  made.href = to;
  made.rel = "noopener noreferrer nofollow";
  made.target = "_blank";
  return made;
}

// --- code --------------------------------------------------------------------------------------------------

const KEYWORDS = new Set(("abstract and as assert async await bool break case catch char class const continue def default del do double elif else enum " +
  "except export extends extern false final finally float fn for from func function global go goto if impl implements import in int interface " +
  "is lambda let long loop match mod module mut new nil none None not null nullptr or package pass private protected pub public raise return " +
  "select self short signed static struct super switch then this throw trait true True False try type typedef typeof union unsafe unsigned use using " +
  "var virtual void volatile when where while with yield echo fi done esac end SELECT FROM WHERE GROUP ORDER BY JOIN ON INSERT UPDATE DELETE CREATE TABLE").split(" "));
const HASHES = new Set(["py", "python", "sh", "bash", "shell", "console", "rb", "ruby", "toml", "yaml", "yml", "r", "make", "makefile", "dockerfile", "perl"]);
const PIECES = /("""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?|`(?:[^`\\]|\\.)*`)|(\/\*[^]*?(?:\*\/|$)|\/\/[^\n]*|#[^\n]*|--[ ][^\n]*)|(\b\d[\w.]*)|([A-Za-z_]\w*)|([^])/g;

function codeBlock(code, language) {
  const inside = element("code"), block = element("pre", inside);
  if (language) inside.className = `language-${language.replace(/[^\w+#-]/g, "")}`;
  inside.append(...(language && language !== "text" ? coloured(code, language.toLowerCase()) : [code]));
  const copy = element("button", "copy");
  copy.className = "copy";
  copy.type = "button";
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code);
    copy.textContent = "copied";
  });
  block.append(copy);
  return block;
}

function coloured(code, language) {
  const found = [], hashes = HASHES.has(language);
  for (const [piece, string, comment, number, word] of code.matchAll(PIECES)) {
    let kind = string ? "string" : number ? "number" : word && KEYWORDS.has(word) ? "keyword" : "";
    if (comment && (comment[0] === "#" ? hashes : !hashes && (comment[0] === "/" || language === "sql"))) kind = "comment";
    if (comment && !kind && comment.length > 1) { // no comment here: its first sign, and the rest anew
      found.push(comment[0], ...coloured(comment.slice(1), language));
      continue;
    }
    if (!kind) {
      found.push(piece);
      continue;
    }
    const made = element("span", piece);
    made.className = kind;
    found.push(made);
  }
  return found;
}
