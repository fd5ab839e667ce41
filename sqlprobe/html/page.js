"use strict";
// The page stands without this: what is here sorts, searches, copies and opens. Text of the application becomes text
// nodes only; the page's policy forbids every way to make markup of it.
(() => {
  const bounds = JSON.parse(document.getElementById("report").dataset.bounds);
  const report = unpack(JSON.parse(document.getElementById("report").textContent));
  const root = document.documentElement;
  const SHORT = 4000; // characters of a statement that are shown, and coloured, before somebody asks for all
  const PRINTED = 200; // rows of a long table on paper
  const SVG = "http://www.w3.org/2000/svg";

  // ---- the report: names of fields, texts and sites stand once in it, see pack.py

  function unpack({ shapes, strings, shared, data }) {
    const opened = [];
    function open(value) {
      if (typeof value === "string") return strings[parseInt(value, 36)];
      if (!Array.isArray(value)) return value;
      const kind = value[0];
      if (kind >= 0) return Object.fromEntries(shapes[kind].map((name, index) => [name, open(value[index + 1])]));
      if (kind === -1) return value.slice(1).map(open);
      if (kind === -3) return (opened[value[1]] ??= open(shared[value[1]]));
      const numbers = new Array(value[1]).fill(0);
      for (let index = 2; index < value.length; index += 2) numbers[value[index]] = value[index + 1];
      return numbers;
    }
    return open(data);
  }

  // ---- words and numbers, as the other outputs write them

  const integers = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const count = (value) => integers.format(value);
  const plural = (value, one) => `${count(value)} ${value === 1 ? one : one + "s"}`;

  function threeDigits(value) {
    const digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    const text = value.toFixed(digits);
    return digits ? text.replace(/\.?0+$/, "") : text;
  }

  function duration(seconds) {
    for (const [factor, unit] of [[1e6, "µs"], [1e3, "ms"], [1, "s"]]) {
      const value = seconds * factor;
      if (value < (unit === "s" ? 59.95 : 999.5)) return `${threeDigits(value)} ${unit}`;
    }
    const whole = Math.round(seconds);
    for (const [size, unit, part, small] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
      if (whole >= size) {
        const rest = Math.floor((whole % size) / part);
        return `${count(Math.floor(whole / size))} ${unit}` + (rest ? ` ${rest} ${small}` : "");
      }
    }
    return `${whole} s`;
  }

  function per(total, number) {
    if (!number) return "—";
    const value = total / number;
    return value >= 9.95 ? count(value) : value.toFixed(1).replace(/\.0$/, "");
  }

  function share(part, whole) {
    if (!(whole > 0)) return "—";
    const percent = (100 * part) / whole;
    return percent > 0 && percent < 0.5 ? "<1 %" : `${percent.toFixed(0)} %`;
  }

  // What is not printable stands there as \x1b or \u202e.
  const UNPRINTABLE = /(?! )[\p{C}\p{Z}]/gu;
  function escaped(char) {
    const code = char.codePointAt(0);
    if (char === "\n") return "\\n";
    if (char === "\r") return "\\r";
    if (char === "\t") return "\\t";
    if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
    if (code < 0x10000) return `\\u${code.toString(16).padStart(4, "0")}`;
    return `\\U${code.toString(16).padStart(8, "0")}`;
  }
  const harmless = (text) => String(text).replace(UNPRINTABLE, escaped);
  const line = (text, limit = 300) =>
    harmless(text.length <= limit ? text : `${text.slice(0, limit / 2)}…${text.slice(-limit / 2)}`);

  const named = (statement) =>
    line((statement.tables.length ? statement.summary || statement.operation : statement.text) ||
      statement.summary || statement.operation || statement.fingerprint);
  const siteOf = (statement) => (statement.sites.length ? statement.sites[0].site : statement.slowest);
  const place = (site) => `${line(site.file, 120)}:${site.line}`;

  // ---- making elements

  function make(name, given = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(given)) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "class") element.className = value;
      else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  function draw(name, given, ...children) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(given)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  function icon(name) {
    return draw("svg", { class: "icon", viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" },
      draw("use", { href: `#icon-${name}` }));
  }

  const bdi = (text) => make("bdi", {}, text);

  function spark(histogram, height = 26) {
    const most = Math.max(...histogram, 1);
    const path = histogram.map((calls, index) => {
      // A single call among a million is still seen.
      const size = calls ? Math.max(6, (100 * calls) / most) : 0;
      return size ? `M${index * 10 + 1} 100v-${size.toFixed(1)}h8V100z` : "";
    }).join("");
    return draw("svg", { class: "spark", viewBox: `0 0 ${histogram.length * 10} 100`, preserveAspectRatio: "none", height, "aria-hidden": "true" },
      draw("line", { x1: 0, x2: histogram.length * 10, y1: 100, y2: 100, "vector-effect": "non-scaling-stroke" }), draw("path", { d: path }));
  }

  const bound = (index) => (index < bounds.length ? `≤ ${duration(bounds[index])}` : `> ${duration(bounds[bounds.length - 1])}`);

  // ---- SQL and Python, coloured; SQL in lines

  const WORDS = {
    sql: new Set(("ADD ALL ALTER ANALYZE AND ANY ARRAY AS ASC BEGIN BETWEEN BY CASCADE CASE CAST CHECK COALESCE COLLATE COLUMN COMMIT CONCURRENTLY CONFLICT " +
      "CONSTRAINT CREATE CROSS CURRENT_DATE CURRENT_TIMESTAMP DEFAULT DELETE DESC DISTINCT DO DROP ELSE END ESCAPE EXCEPT EXISTS EXPLAIN EXTRACT FALSE FETCH " +
      "FILTER FIRST FOR FOREIGN FROM FULL GROUP HAVING IF ILIKE IN INCLUDE INDEX INNER INSERT INTERSECT INTERVAL INTO IS JOIN KEY LAST LATERAL LEFT LIKE LIMIT " +
      "LOCKED MATERIALIZED MERGE NATURAL NOT NOTHING NOWAIT NULL NULLS OF OFFSET ON ONLY OR ORDER OUTER OVER PARTITION PRIMARY RECURSIVE REFERENCES RELEASE RETURNING " +
      "RIGHT ROLLBACK ROW ROWS SAVEPOINT SELECT SET SHARE SIMILAR SKIP SOME TABLE THEN TO TRUE TRUNCATE UNION UNIQUE UPDATE USING VALUES VIEW WHEN WHERE WINDOW WITH WITHIN").split(" ")),
    python: new Set(("False None True and as assert async await break class continue def del elif else except finally for from global if import in is lambda nonlocal not or " +
      "pass raise return try while with yield").split(" ")),
  };
  const TOKENS = {
    sql: /(--[^\n]*|\/\*[\s\S]*?(?:\*\/|$))|('(?:[^']|'')*(?:'|$))|("(?:[^"]|"")*(?:"|$)|`[^`]*(?:`|$))|(\$\d+|%\(\w+\)s|%s|(?<![:\w]):\w+|\?|\b\d+(?:\.\d+)?(?:e[+-]?\d+)?\b)|([\p{L}_][\p{L}\p{N}_$]*)|(\s+)|([\s\S])/giu,
    python: /(#[^\n]*)|("""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)|[rbf]?"(?:[^"\\\n]|\\.)*(?:"|$)|[rbf]?'(?:[^'\\\n]|\\.)*(?:'|$))|(\0)|(\b\d[\d_]*(?:\.\d+)?\b)|([\p{L}_][\p{L}\p{N}_]*)|(\s+)|([\s\S])/gu,
  };
  const CLAUSES = new Set(["FROM", "WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "OFFSET", "UNION", "EXCEPT", "INTERSECT", "VALUES", "SET", "RETURNING",
    "ON CONFLICT", "JOIN", "LEFT", "RIGHT", "FULL", "INNER", "CROSS", "NATURAL", "WINDOW", "FOR", "USING"]);
  const NO_BREAK = { FROM: ["DELETE", "DISTINCT"], JOIN: ["LEFT", "RIGHT", "FULL", "INNER", "CROSS", "OUTER", "NATURAL"], SET: ["UPDATE"], ORDER: ["("], SELECT: [],
    INNER: ["NATURAL"], LEFT: ["NATURAL"], RIGHT: ["NATURAL"], USING: null };

  function tokens(text, language) {
    const found = [];
    for (const [whole, comment, string, quoted, literal, word, space] of text.matchAll(TOKENS[language])) {
      const kind = comment ? "c" : string ? "s" : quoted ? "q" : literal ? "l" : space ? " " :
        word && WORDS[language].has(language === "sql" ? word.toUpperCase() : word) ? "k" : "";
      found.push([kind, whole]);
    }
    return found;
  }

  // Line breaks where clauses begin, in place of the blanks there: nothing else of the statement is touched.
  function inLines(found) {
    const nesting = [{ query: true, indent: 0, between: false, where: false }];
    let last = "";
    return found.map(([kind, text], index) => {
      const top = nesting[nesting.length - 1];
      const next = found[index + 1];
      if (kind === " " && next) {
        const word = next[0] === "k" ? next[1].toUpperCase() : "";
        if (!top.query || !word) return [" ", text];
        const no = NO_BREAK[word];
        if (CLAUSES.has(word) && no !== null && !(no && no.includes(last)) && !(word === "FOR" && last === "(")) {
          if (word === "LEFT" || word === "RIGHT") {
            const after = found[index + 2];
            if (!after || after[1] === "(") return [" ", text]; // the functions left() and right()
          }
          top.where = word === "WHERE" || word === "HAVING";
          return [" ", "\n" + " ".repeat(top.indent)];
        }
        if (word === "SELECT" && (last === "ALL" || last === "UNION" || last === "EXCEPT" || last === "INTERSECT" || last === ")")) return [" ", "\n" + " ".repeat(top.indent)];
        if ((word === "AND" || word === "OR") && top.where) {
          if (word === "AND" && top.between) {
            top.between = false;
            return [" ", text];
          }
          return [" ", "\n" + " ".repeat(top.indent + 2)];
        }
        return [" ", text];
      }
      if (text === "(") {
        const inner = next && next[0] === "k" && ["SELECT", "WITH"].includes(next[1].toUpperCase());
        nesting.push({ query: Boolean(inner), indent: top.indent + 4, between: false, where: false });
      } else if (text === ")" && nesting.length > 1) nesting.pop();
      else if (kind === "k" && text.toUpperCase() === "BETWEEN") top.between = true;
      if (kind !== " ") last = text.toUpperCase();
      return [kind, text];
    });
  }

  function coloured(text, language) {
    if (!TOKENS[language]) return [document.createTextNode(text)];
    const found = tokens(text, language);
    return (language === "sql" && !text.includes("\n") ? inLines(found) : found).map(([kind, part]) =>
      kind === " " || kind === "" && part.length === 1 ? document.createTextNode(part) : make("span", { class: kind && kind !== "q" ? kind : null }, part));
  }

  function colour(code) {
    if (code.dataset.done) return;
    code.dataset.done = "1";
    const text = code.textContent;
    if (text.length <= 3 * SHORT) code.replaceChildren(...coloured(text, code.className));
  }

  // ---- copying

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not allowed here (a sandbox, plain http): the old way needs a selection.
      const area = make("textarea", { readonly: true, class: "copying", "aria-hidden": "true" });
      area.value = text;
      (document.querySelector("dialog[open]") || document.body).append(area);
      area.select();
      try {
        return document.execCommand("copy");
      } catch {
        return false;
      } finally {
        area.remove();
      }
    }
  }

  const said = make("p", { class: "sr", role: "status" });

  async function copyFrom(button) {
    const text = button.parentElement.querySelector("code").textContent;
    const done = await copy(text);
    const label = button.querySelector("span");
    label.textContent = done ? "Copied" : "Not allowed";
    button.classList.toggle("done", done);
    announce(done ? "Copied" : "The browser does not allow copying");
    button.focus();
    setTimeout(() => {
      label.textContent = "Copy";
      button.classList.remove("done");
    }, 2000);
  }

  function announce(text) {
    const open = document.querySelector("dialog[open]") || document.body;
    if (said.parentElement !== open) open.append(said);
    said.textContent = text;
  }

  function codeBlock(text, language, label) {
    const code = make("code", { class: language, "data-done": "1" }, ...coloured(text, language));
    return make("div", { class: "code" }, make("pre", { tabindex: 0, "aria-label": label }, code),
      make("button", { type: "button", class: "copy", "data-copy": true }, icon("copy"), make("span", {}, "Copy")));
  }

  // ---- long tables: only the rows that are in sight exist

  class Table {
    constructor(holder, name, items, columns, { haystack, filters = [], initial }) {
      this.items = items;
      this.columns = columns;
      this.haystack = haystack;
      this.texts = null;
      this.filters = filters;
      this.sorted = initial;
      this.descending = true;
      this.name = name;
      this.rows = new Map();
      this.orders = new Map();
      this.search = make("input", { type: "search", placeholder: `Search ${name}`, "aria-label": `Search ${name}`, autocomplete: "off", spellcheck: "false", oninput: () => this.refresh() });
      this.order = make("select", { class: "sort-select", "aria-label": "Sort by", onchange: () => this.sort(this.order.value, true) },
        ...columns.filter((column) => column.key).map((column) => make("option", { value: column.id, selected: column.id === initial }, `By ${column.title.toLowerCase()}`)));
      this.status = make("p", { class: "shown", role: "status" });
      const form = make("form", { class: "filters", role: "search", "aria-label": `Filter the ${name}`, onsubmit: (event) => event.preventDefault() },
        this.search, ...filters.map((filter) => filter.build(() => this.refresh())), this.order, this.status);
      this.heads = columns.map((column) =>
        make("th", { scope: "col", role: "columnheader", class: `c-${column.id}${column.numeric ? " n" : ""}` },
          column.key ? make("button", { type: "button", onclick: () => this.sort(column.id) }, column.title) : make("span", { class: "head" }, column.title)));
      const spacer = () => make("tr", { class: "spacer", "aria-hidden": "true" }, make("td", { colspan: columns.length }));
      this.above = spacer();
      this.below = spacer();
      this.body = make("tbody", { role: "rowgroup" }, this.above, this.below);
      this.table = make("table", { class: "grid-table", role: "table", "aria-label": name },
        make("thead", { role: "rowgroup" }, make("tr", { role: "row", "aria-rowindex": 1 }, ...this.heads)), this.body);
      this.none = make("p", { class: "card empty", hidden: true }, "Nothing matches.");
      holder.replaceChildren(form, this.table, this.none);
      this.table.addEventListener("keydown", (event) => this.move(event));
      this.printing = false;
      this.refresh();
      let asked = false;
      const later = () => {
        if (asked) return;
        asked = true;
        requestAnimationFrame(() => {
          asked = false;
          this.render();
        });
      };
      addEventListener("scroll", later, { passive: true });
      addEventListener("resize", later);
      this.update = later;
    }

    sort(id, fresh = false) {
      this.descending = fresh || this.sorted !== id ? !this.columns.find((column) => column.id === id).rising : !this.descending;
      this.sorted = id;
      this.order.value = id;
      this.refresh();
    }

    // The items' numbers in the order asked for; each order is made once, so that typing only filters.
    ordered() {
      const name = `${this.sorted} ${this.descending}`;
      if (!this.orders.has(name)) {
        const keys = this.items.map(this.columns.find((each) => each.id === this.sorted).key);
        const sign = this.descending ? -1 : 1;
        this.orders.set(name, [...keys.keys()].sort((a, b) => (keys[a] < keys[b] ? -sign : keys[a] > keys[b] ? sign : a - b)));
      }
      return this.orders.get(name);
    }

    refresh() {
      const wanted = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
      if (wanted.length && !this.texts) this.texts = this.items.map((item) => this.haystack(item).toLowerCase());
      const tests = this.filters.map((filter) => filter.test()).filter(Boolean);
      this.shown = this.ordered().filter((index) =>
        wanted.every((word) => this.texts[index].includes(word)) && tests.every((test) => test(this.items[index])));
      this.heads.forEach((head, number) => {
        if (this.columns[number].id === this.sorted) head.setAttribute("aria-sort", this.descending ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      });
      this.status.textContent = this.shown.length === this.items.length ? plural(this.items.length, this.name.slice(0, -1))
        : `${count(this.shown.length)} of ${count(this.items.length)}`;
      this.table.hidden = !this.shown.length;
      this.none.hidden = Boolean(this.shown.length);
      this.table.setAttribute("aria-rowcount", this.shown.length + 1);
      for (const row of this.rows.values()) row.remove();
      this.rows.clear();
      this.render();
    }

    render() {
      if (!this.table.offsetParent && !this.printing) return;
      const height = parseFloat(getComputedStyle(this.table).getPropertyValue("--row"));
      const top = this.body.getBoundingClientRect().top;
      let first = Math.max(0, Math.floor(-top / height) - 12);
      let last = Math.min(this.shown.length, Math.ceil((innerHeight - top) / height) + 12);
      if (this.printing) [first, last] = [0, Math.min(this.shown.length, PRINTED)];
      if (last <= first) [first, last] = [Math.max(0, Math.min(first, this.shown.length - 1)), Math.min(this.shown.length, first + 1)];
      let lost = null;
      for (const [position, row] of this.rows) {
        if (position < first || position >= last) {
          if (row.contains(document.activeElement)) lost = position;
          row.remove();
          this.rows.delete(position);
        }
      }
      let before = this.above;
      for (let position = first; position < last; position++) {
        let row = this.rows.get(position);
        if (!row) {
          row = this.build(position);
          this.rows.set(position, row);
        }
        if (before.nextSibling !== row) before.after(row);
        before = row;
      }
      this.above.firstChild.style.height = `${first * height}px`;
      this.below.firstChild.style.height = this.printing ? "0" : `${(this.shown.length - last) * height}px`;
      if (lost !== null) this.focus(lost < first ? first : last - 1, false);
    }

    build(position) {
      const item = this.items[this.shown[position]];
      return make("tr", { class: "row", role: "row", "aria-rowindex": position + 2 }, ...this.columns.map((column, number) =>
        make(number ? "td" : "th", { role: number ? "cell" : "rowheader", scope: number ? null : "row", class: `c-${column.id}${column.numeric ? " n" : ""}`, "data-label": column.short }, ...[column.cell(item, this.shown[position])].flat())));
    }

    focus(position, scroll = true) {
      if (scroll) {
        const height = parseFloat(getComputedStyle(this.table).getPropertyValue("--row"));
        const from = this.body.getBoundingClientRect().top + position * height;
        const bar = document.querySelector(".bar").offsetHeight + height;
        if (from < bar) scrollBy(0, from - bar);
        else if (from + height > innerHeight) scrollBy(0, from + height - innerHeight + 8);
        this.render();
      }
      const row = this.rows.get(position);
      const target = row && (row.querySelector("button, a") || row);
      if (target) target.focus({ preventScroll: true });
    }

    move(event) {
      const row = event.target.closest("tr.row");
      const steps = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity };
      if (!row || !(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      const position = Number(row.getAttribute("aria-rowindex")) - 2 + steps[event.key];
      this.focus(Math.max(0, Math.min(this.shown.length - 1, position)));
    }
  }

  function choice(label, values, test) {
    const select = make("select", { "aria-label": label }, make("option", { value: "" }, label), ...values.map((value) => make("option", { value }, line(value, 60))));
    return {
      build: (changed) => {
        select.addEventListener("change", changed);
        return select;
      },
      test: () => (select.value ? (item) => test(item, select.value) : null),
    };
  }

  function flag(label, test) {
    const box = make("input", { type: "checkbox" });
    return {
      build: (changed) => {
        box.addEventListener("change", changed);
        return make("label", {}, box, label);
      },
      test: () => (box.checked ? test : null),
    };
  }

  const total = report.statements.reduce((sum, each) => sum + each.seconds, 0);
  const several = new Set(report.statements.map((each) => each.engine)).size > 1;
  const failures = (statement) => Object.values(statement.errors).reduce((sum, each) => sum + each, 0);
  const accused = new Map();
  report.findings.forEach((finding, index) => {
    if (finding.fingerprint) accused.set(finding.fingerprint, [...(accused.get(finding.fingerprint) || []), index]);
  });
  const unique = (values) => [...new Set(values)].filter(Boolean).sort();

  function statementName(statement, index) {
    const open = make("button", { type: "button", class: "name", "aria-haspopup": "dialog", onclick: () => (location.hash = `statement-${index}`) }, bdi(named(statement)));
    const marks = [];
    if (failures(statement)) marks.push(make("span", { class: "badge error" }, plural(failures(statement), "error")), " ");
    if (accused.has(statement.fingerprint)) marks.push(make("span", { class: "badge warning" }, plural(accused.get(statement.fingerprint).length, "finding")), " ");
    const more = several && statement.engine ? `${line(statement.engine, 40)} · ` : "";
    return [open, make("span", { class: "under" }, ...marks, make("code", {}, bdi(more + line(statement.text, 200))))];
  }

  const number = (id, title, key, cell, more = {}) => ({ id, title, key, numeric: true, cell, ...more });
  const statementColumns = [
    { id: "name", title: "Statement", key: (s) => named(s).toLowerCase(), rising: true, cell: statementName },
    number("time", "Time", (s) => s.seconds, (s) => [make("span", { class: "name strong" }, duration(s.seconds)), make("span", { class: "under" }, share(s.seconds, total))]),
    number("calls", "Calls", (s) => s.calls, (s) => count(s.calls), { short: "calls" }),
    number("mean", "Mean", (s) => (s.calls ? s.seconds / s.calls : 0), (s) => (s.calls ? duration(s.seconds / s.calls) : "—")),
    number("p95", "95 % within", (s) => s.p95, (s) => duration(s.p95), { short: "95 %" }),
    number("rows", "Rows/call", (s) => (s.rows === null || !s.calls ? -1 : s.rows / s.calls), (s) => (s.rows === null ? "—" : per(s.rows, s.calls))),
    { id: "hist", title: "10 µs to 60 s", cell: (s) => (s.histogram.length ? spark(s.histogram) : "") },
    { id: "where", title: "Where", key: (s) => (siteOf(s) ? place(siteOf(s)) : "\uffff"), rising: true, cell: (s) => {
      const site = siteOf(s);
      return site ? [make("span", { class: "name" }, make("code", {}, bdi(shortPlace(site)))), make("span", { class: "under" }, bdi(line(site.function, 80)))] : "—";
    } },
  ];
  const shortPlace = (site) => {
    const text = place(site);
    return text.length <= 30 ? text : `…/${text.split("/").slice(-2).join("/")}`;
  };

  const tables = [];
  if (report.statements.length) {
    const filters = [];
    const operations = unique(report.statements.map((each) => each.operation));
    if (operations.length > 1) filters.push(choice("Every operation", operations, (each, value) => each.operation === value));
    if (several) filters.push(choice("Every engine", unique(report.statements.map((each) => each.engine)), (each, value) => each.engine === value));
    if (report.statements.some(failures)) filters.push(flag("with errors", failures));
    if (accused.size) filters.push(flag("with findings", (each) => accused.has(each.fingerprint)));
    tables.push(new Table(document.getElementById("statements-table"), "statements", report.statements, statementColumns, {
      initial: "time", filters,
      haystack: (each) => [each.summary, each.text, each.engine, each.fingerprint, ...each.tables, ...each.sites.map(({ site }) => `${site.file}:${site.line} ${site.function}`)].join(" "),
    }));
  }
  if (report.scopes.length) {
    const kinds = unique(report.scopes.map((each) => each.kind));
    tables.push(new Table(document.getElementById("scopes-table"), "scopes", report.scopes, [
      { id: "name", title: "Scope", key: (s) => s.name.toLowerCase(), rising: true, cell: (s) => [
        make("span", { class: "name strong" }, bdi(line(s.name) || "(no name)")),
        make("span", { class: "under" }, line(s.kind, 60) + (s.late ? ` · ${count(s.late)} late calls` : "")),
      ] },
      number("time", "Time", (s) => s.seconds, (s) => make("span", { class: "strong" }, duration(s.seconds))),
      number("wall", "Wall", (s) => s.wall_seconds, (s) => duration(s.wall_seconds)),
      number("calls", "Scopes", (s) => s.count, (s) => count(s.count), { short: "×" }),
      number("mean", "Calls each", (s) => (s.count ? s.calls / s.count : 0), (s) => per(s.calls, s.count)),
      number("p95", "95 % within", (s) => s.p95_calls, (s) => `${count(s.p95_calls)} calls`, { short: "95 %" }),
      number("rows", "Rows each", (s) => (s.count ? s.rows / s.count : 0), (s) => per(s.rows, s.count)),
      number("errors", "Errors", (s) => s.errors, (s) => count(s.errors)),
      { id: "hist", title: "10 µs to 60 s", cell: (s) => (s.seconds_histogram.length ? spark(s.seconds_histogram) : "") },
    ], { initial: "time", filters: kinds.length > 1 ? [choice("Every kind", kinds, (each, value) => each.kind === value)] : [], haystack: (each) => `${each.name} ${each.kind}` }));
  }

  // ---- one statement

  const detail = document.getElementById("detail");
  let back = "statements"; // where the page was before

  function siteLine(site) {
    return [make("code", {}, bdi(place(site))), " ", make("span", { class: "dim" }, "in ", bdi(line(site.function, 120))),
      ...(site.caller ? [make("br"), make("span", { class: "dim" }, "called from "), make("code", {}, bdi(place(site.caller)))] : [])];
  }

  function showStatement(index) {
    const statement = report.statements[index];
    const fact = (label, value) => make("div", {}, make("dt", {}, label), make("dd", {}, value));
    const close = make("button", { type: "button", class: "quiet", onclick: () => detail.close() }, icon("close"), make("span", { class: "sr" }, "Close"));
    const body = [];
    if (statement.text) {
      const text = harmless(statement.text.slice(0, SHORT));
      const holder = make("div", {}, codeBlock(text, "sql", "The statement"));
      if (statement.text.length > SHORT) {
        const all = make("button", { type: "button", onclick: () => {
          const whole = codeBlock(harmless(statement.text), "plain", "The statement");
          holder.replaceChildren(whole);
          whole.querySelector("pre").focus();
        } }, `Show all ${count(statement.text.length)} characters`);
        holder.append(all);
      }
      body.push(holder);
    }
    body.push(make("dl", { class: "numbers" },
      fact("Time", `${duration(statement.seconds)} (${share(statement.seconds, total)})`), fact("Calls", count(statement.calls)),
      fact("Mean", statement.calls ? duration(statement.seconds / statement.calls) : "—"),
      fact("Half within", duration(statement.p50)), fact("95 % within", duration(statement.p95)), fact("99 % within", duration(statement.p99)),
      fact("Fastest", duration(statement.min)), fact("Slowest", duration(statement.max)),
      fact("Rows", statement.rows === null ? "not told" : count(statement.rows)),
      ...(statement.parameter_sets > statement.calls ? [fact("Parameter sets", count(statement.parameter_sets))] : []),
      ...(statement.pages > statement.calls ? [fact("Pages", count(statement.pages))] : [])));
    const filled = statement.histogram.map((calls, at) => (calls ? at : -1)).filter((at) => at >= 0);
    if (filled.length) {
      const part = statement.histogram.slice(filled[0], filled[filled.length - 1] + 1);
      const most = Math.max(...part);
      body.push(make("section", {}, make("h3", {}, "How long calls take"), make("ul", { class: "histogram" }, ...part.map((calls, at) =>
        make("li", {}, make("span", { class: "sr" }, `${bound(filled[0] + at)}: ${plural(calls, "call")}`),
          make("span", { class: "histogram-value", "aria-hidden": "true" }, calls ? share(calls, statement.calls) : ""),
          draw("svg", { width: "100%", height: 64, viewBox: "0 0 10 100", preserveAspectRatio: "none", "aria-hidden": "true" },
            draw("rect", { x: 0, width: 10, y: 100 - (calls ? Math.max(3, (100 * calls) / most) : 0), height: calls ? Math.max(3, (100 * calls) / most) : 0 })),
          make("span", { class: "histogram-label", "aria-hidden": "true" }, bound(filled[0] + at)))))));
    }
    if (statement.sites.length || statement.slowest) {
      body.push(make("section", {}, make("h3", {}, "Called from"), make("ul", { class: "sites" },
        ...statement.sites.map(({ site, calls }) => make("li", {}, make("strong", { class: "n" }, `${count(calls)} × `), ...siteLine(site))),
        ...(statement.slowest ? [make("li", {}, make("span", { class: "dim" }, "slowest call: "), ...siteLine(statement.slowest))] : []))));
    }
    const failed = Object.entries(statement.errors);
    if (failed.length) {
      body.push(make("section", {}, make("h3", {}, "Errors"), make("ul", { class: "sites" },
        ...failed.sort((a, b) => b[1] - a[1]).map(([name, calls]) => make("li", {}, make("strong", { class: "failed" }, `${count(calls)} × `), make("code", {}, bdi(line(name, 120))))))));
    }
    const findings = accused.get(statement.fingerprint) || [];
    if (findings.length) {
      body.push(make("section", {}, make("h3", {}, "Findings"), make("ul", { class: "finding-lines" }, ...findings.map((at) => {
        const finding = report.findings[at];
        return make("li", { class: "finding-line" }, make("span", { class: `badge ${finding.severity}` }, finding.severity), make("a", { href: `#finding-${at}` }, bdi(line(finding.title))));
      }))));
    }
    const when = (seconds) => (seconds ? new Date(seconds * 1000).toISOString().replace("T", " ").slice(0, 19) + " UTC" : "—");
    body.push(make("dl", { class: "pairs" }, fact("Engine", line(statement.engine) || "—"), fact("Tables", statement.tables.map((each) => line(each, 120)).join(", ") || "—"),
      fact("First seen", when(statement.first_seen)), fact("Last seen", when(statement.last_seen)), fact("Fingerprint", make("code", {}, line(statement.fingerprint)))));
    detail.replaceChildren(make("div", { class: "detail-head" }, make("div", {}, make("span", { class: "dim" }, "Statement"), make("h2", { id: "detail-title" }, bdi(named(statement)))), close),
      make("div", { class: "detail-body" }, ...body));
    if (!detail.open) detail.showModal();
    detail.scrollTop = 0;
  }

  detail.addEventListener("close", () => {
    if (/^#statement-\d+$/.test(location.hash)) history.replaceState(null, "", `#${back}`);
  });
  detail.addEventListener("click", (event) => {
    if (event.target === detail) detail.close();
  });

  // ---- parts of the page

  const views = [...document.querySelectorAll("main > [data-view]")];
  const links = [...document.querySelectorAll(".bar nav a")];

  function show(view) {
    for (const each of views) each.hidden = each !== view;
    for (const link of links) {
      if (link.hash === `#${view.id}`) {
        link.setAttribute("aria-current", "page");
        link.scrollIntoView({ block: "nearest", inline: "center" });
      } else link.removeAttribute("aria-current");
    }
    for (const table of tables) table.render();
    view.querySelectorAll("code").forEach((code) => seen.observe(code));
  }

  function go() {
    const id = location.hash.slice(1);
    const opened = /^statement-(\d+)$/.exec(id);
    if (opened && Number(opened[1]) < report.statements.length) {
      if (views.every((view) => !view.hidden)) show(document.getElementById("statements"));
      showStatement(Number(opened[1]));
      return;
    }
    if (detail.open) detail.close();
    const target = id ? document.getElementById(id) : null;
    const view = (target && target.closest("main > [data-view]")) || views[0];
    const changed = view.hidden || views.some((each) => each !== view && !each.hidden);
    back = id && target ? id : view.id;
    if (changed) show(view);
    if (target && target !== view) {
      if (target.tagName === "DETAILS") target.open = true;
      target.hidden = false;
      target.scrollIntoView({ block: "start" });
      target.setAttribute("tabindex", "-1");
      target.focus({ preventScroll: true });
    } else if (changed) scrollTo(0, 0);
  }

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        seen.unobserve(entry.target);
        if (entry.target.closest("pre")) colour(entry.target);
      }
    }
  }, { rootMargin: "600px" });

  const form = document.getElementById("findings-filter");
  if (form) {
    form.hidden = false;
    const cards = [...document.querySelectorAll("#finding-cards > .finding")];
    const texts = cards.map((card) => card.textContent.toLowerCase());
    const filter = () => {
      const wanted = form.elements.search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      cards.forEach((card, index) => {
        card.hidden = !(wanted.every((word) => texts[index].includes(word)) && (!form.elements.severity.value || card.dataset.severity === form.elements.severity.value)
          && (!form.elements.rule.value || card.dataset.rule === form.elements.rule.value));
        left += !card.hidden;
      });
      form.querySelector(".shown").textContent = left === cards.length ? plural(left, "finding") : `${count(left)} of ${count(cards.length)}`;
    };
    form.addEventListener("input", filter);
    form.addEventListener("change", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    filter();
  }

  // ---- colours, saving, keys, paper

  const theme = document.getElementById("theme");
  const themes = { "": "as the system has them", light: "light", dark: "dark" };
  let chosen = "";
  try {
    chosen = localStorage.getItem("sqlprobe-theme") || "";
  } catch { /* a sandbox has no storage */ }
  function paint(wanted) {
    chosen = wanted in themes ? wanted : "";
    if (chosen) root.dataset.theme = chosen;
    else delete root.dataset.theme;
    theme.querySelector(".sr").textContent = theme.title = `Colours: ${themes[chosen]}`;
    try {
      localStorage.setItem("sqlprobe-theme", chosen);
    } catch { /* as above */ }
  }
  paint(chosen);
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const names = Object.keys(themes);
    paint(names[(names.indexOf(chosen) + 1) % names.length]);
  });

  const save = document.getElementById("save");
  save.hidden = false;
  save.addEventListener("click", () => {
    const link = make("a", { href: URL.createObjectURL(new Blob([JSON.stringify(report)], { type: "application/json" })), download: "sqlprobe-report.json" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });

  document.querySelectorAll("[data-needs-script], [data-copy]").forEach((element) => (element.hidden = false));
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copyFrom(button);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || detail.open || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const field = views.find((view) => !view.hidden).querySelector("input[type=search]");
    if (field) {
      event.preventDefault();
      field.focus();
    }
  });

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("main details:not([open])")];
    for (const each of folded) each.open = true;
    document.querySelectorAll("main pre code").forEach(colour);
    for (const table of tables) {
      table.printing = true;
      table.render();
      if (table.shown.length > PRINTED) table.table.after(make("p", { class: "dim printed" }, `… and ${count(table.shown.length - PRINTED)} more`));
    }
  });
  addEventListener("afterprint", () => {
    for (const each of folded) each.open = false;
    document.querySelectorAll(".printed").forEach((each) => each.remove());
    for (const table of tables) {
      table.printing = false;
      table.render();
    }
  });

  addEventListener("hashchange", go);
  go();
  root.dataset.ready = "1";
})();
