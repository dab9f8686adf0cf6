// The list of instruments: the first hundred that the search finds, one of them chosen.

import { basisPoints, decimalsOf, number, points } from "./format.js";

export class List {
  #items = [];

  /** @param choose takes the name of the instrument that was chosen */
  constructor(element, choose) {
    this.element = element;
    this.choose = choose;
    element.addEventListener("click", (event) => this.#click(event));
    element.addEventListener("keydown", (event) => this.#press(event));
  }

  get names() {
    return this.#items.filter(({ item }) => !item.hidden).map(({ link }) => link.dataset.name);
  }

  show(rows, chosen) {
    while (this.#items.length < rows.length) this.#grow();
    this.#items.forEach((parts, index) => fill(parts, rows[index] ?? null, chosen));
    // One of the links takes part in the order of the Tab key, the arrows reach the others.
    const links = this.#items.slice(0, rows.length).map(({ link }) => link);
    const entry = links.find((link) => link === document.activeElement) ?? links.find((link) => link.dataset.name === chosen);
    for (const link of links) link.tabIndex = link === (entry ?? links[0]) ? 0 : -1;
  }

  #grow() {
    const item = document.createElement("li");
    const link = document.createElement("a");
    const parts = ["name", "level", "move"].map((name) => {
      const part = document.createElement("span");
      part.className = name;
      return part;
    });
    link.append(...parts);
    item.append(link);
    this.element.append(item);
    this.#items.push({ item, link, parts });
  }

  #click(event) {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    this.choose(link.dataset.name);
  }

  #press(event) {
    const links = this.#items.filter(({ item }) => !item.hidden).map(({ link }) => link);
    const at = links.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
    if (at < 0 || to === undefined || !links[to]) return;
    event.preventDefault();
    links[at].tabIndex = -1;
    links[to].tabIndex = 0;
    links[to].focus();
  }
}

function fill({ item, link, parts: [name, level, move] }, row, chosen) {
  item.hidden = row === null;
  if (row === null) return;
  if (link.dataset.name !== row.name) {
    link.dataset.name = row.name;
    link.href = `?${new URLSearchParams({ instrument: row.name })}`;
    write(name, row.name);
    name.title = row.name;
  }
  if ((link.getAttribute("aria-current") === "true") !== (row.name === chosen)) {
    if (row.name === chosen) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  const expected = row.mean === null ? null : basisPoints(row.at, row.mean);
  write(level, row.price === null ? "·" : number(row.price, decimalsOf(row.price)));
  write(move, points(expected));
  move.dataset.sign = String(Math.sign(expected ?? 0));
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
