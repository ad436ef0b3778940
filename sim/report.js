// SPDX-License-Identifier: Apache-2.0
// Read-outs on hover and by arrow keys. The page is complete without them.
"use strict";
for (const svg of document.querySelectorAll("svg.plot")) {
  const rows = [...svg.querySelectorAll("g.read")].map((row) => ({
    style: row.dataset.style, name: row.dataset.name, at: row.dataset.at.split("|"),
    places: row.dataset.x ? row.dataset.x.split("|").map(Number) : [], values: row.dataset.values.split("|"),
    top: row.dataset.top, bottom: row.dataset.bottom,
  })).filter((row) => row.places.length);
  if (!rows.length) continue;
  // Steps have two points in one place: the later one counts.
  const names = new Map();
  for (const row of rows) row.places.forEach((place, index) => names.set(place, row.at[index]));
  const places = [...names.keys()].sort((a, b) => a - b);
  const figure = svg.closest("figure");
  let tip = null, cursor = null, now = -1;

  const hide = () => {
    if (tip) tip.remove();
    if (cursor) cursor.remove();
    tip = cursor = null;
    now = -1;
  };
  const show = (index) => {
    if (index === now) return;
    hide();
    now = index;
    cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
    cursor.setAttribute("class", "cursor");
    cursor.setAttribute("d", `M${places[index]} ${rows[0].top}V${rows[0].bottom}`);
    svg.append(cursor);
    tip = document.createElement("div");
    tip.className = "tip";
    const head = document.createElement("b");
    head.textContent = names.get(places[index]);
    tip.append(head);
    for (const row of rows) {
      const at = row.places.lastIndexOf(places[index]);
      if (at < 0 || !row.values[at]) continue;
      const line = document.createElement("div");
      const box = document.createElement("i");
      box.className = row.style.split(" ")[0];
      line.append(box, `${row.name}: ${row.values[at]}`);
      tip.append(line);
    }
    figure.append(tip);
    const area = svg.getBoundingClientRect(), frame = figure.getBoundingClientRect();
    const x = area.left - frame.left + places[index] / svg.viewBox.baseVal.width * area.width;
    const left = x + 14 + tip.offsetWidth > frame.width ? x - 14 - tip.offsetWidth : x + 14;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${area.top - frame.top + area.height * 0.2}px`;
  };
  const nearest = (event) => {
    const area = svg.getBoundingClientRect();
    const x = (event.clientX - area.left) / area.width * svg.viewBox.baseVal.width;
    let best = 0;
    places.forEach((place, index) => {
      if (Math.abs(place - x) < Math.abs(places[best] - x)) best = index;
    });
    return best;
  };
  svg.addEventListener("pointermove", (event) => show(nearest(event)));
  svg.addEventListener("pointerdown", (event) => show(nearest(event)));
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    show(Math.min(places.length - 1, Math.max(0, now < 0 ? 0 : now + step)));
  });
}
