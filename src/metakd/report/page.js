"use strict";
// Draws the charts and handles clicks. What comes from data is set as text, never as HTML. Colours are the style's
// own variables, so that what is drawn follows the reader's scheme, and the printer's.
const known = JSON.parse(document.getElementById("known").textContent);
const dialog = document.getElementById("details");
const plane = document.querySelector(".plane");
const drawing = { actions: false, renderer: "svg", ast: true, config: theme() };
let network = null;

function theme() {
  const font = getComputedStyle(document.body).fontFamily, narrow = window.innerWidth < 600;
  const text = { labelColor: "var(--muted)", titleColor: "var(--muted)", labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" };
  const below = { orient: "bottom", columns: 3, layout: { bottom: { direction: "vertical", anchor: "start" } } };
  const colours = Array.from({ length: 8 }, (_, place) => `var(--colour-${place})`);
  return {
    background: "transparent", mark: { color: "var(--accent)" }, view: { stroke: null }, font,
    axis: { ...text, gridColor: "var(--border)", domain: false, ticks: false, labelPadding: 6, titlePadding: 10 },
    axisX: { titleAnchor: "end" },
    axisY: { titleAngle: 0, titleAlign: "left", titleAnchor: "end", titleX: 0, titleY: -10, titleBaseline: "bottom" },
    legend: { ...text, labelColor: "var(--ink)", orient: "right", ...(narrow ? below : {}), symbolBaseFillColor: "var(--ink)" },
    range: { category: colours },
  };
}

async function draw() {
  network = (await vegaEmbed("#graph", known.network, drawing)).view;
  await fitToPlane().runAsync();
  let pressed = [0, 0];
  network.addEventListener("pointerdown", (event) => { pressed = [event.clientX, event.clientY]; });
  network.addEventListener("click", (event, item) => {
    const moved = Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > 4;
    if (!moved && item && item.mark.name === "node") openNode(item.datum.id);
  });
  for (const [name, specification] of Object.entries(known.pictures)) {
    await vegaEmbed(`#${name}`, specification, drawing);
  }
  document.documentElement.dataset.drawn = "true";
}

function fitToPlane() {
  if (window.matchMedia("print").matches) return network; // on paper the picture shrinks as it is
  return network.width(plane.clientWidth).height(plane.clientHeight);
}

function zoom(factor) {
  if (factor === 0) network.signal("zoom", 1).signal("centre", { x: 0, y: 0 });
  else network.signal("zoom", Math.min(4, Math.max(0.5, network.signal("zoom") * factor)));
  network.runAsync();
}

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

function heading(text, scope) {
  const made = element("th", text);
  made.scope = scope;
  return made;
}

function table(headings, rows, label) {
  const body = rows.map((row) => element("tr", null, ...row.map((value, place) => (place ? element("td", value) : heading(value, "row")))));
  const head = element("tr", null, ...headings.map((text) => heading(text, "col")));
  const made = element("table", null, element("thead", null, head), element("tbody", null, ...body));
  const wide = element("div", null, made);
  Object.assign(wide, { className: "wide", tabIndex: 0, role: "region", ariaLabel: label });
  return wide;
}

function facts(pairs) {
  return element("dl", null, ...pairs.map(([name, value]) => element("div", null, element("dt", name), element("dd", value))));
}

function examples(title, list, models) {
  const counted = list.count > list.shown.length ? `${title}: ${list.shown.length} of ${list.count}` : title;
  const items = list.shown.map((id) => {
    const example = known.examples[id];
    const labels = models.map((name) => `${known.kinds[name]} ${example.predictions[name][0]}, ${Math.round(100 * example.predictions[name][1])} % sure`);
    return element("li", null, element("p", example.texts.join(" / ")),
      element("small", `${id}: labelled ${example.label}; ${labels.join("; ")}`));
  });
  return [element("h3", counted), items.length ? element("ul", null, ...items) : element("p", "None.")];
}

function confusion(model) {
  if (model.confused) return table(["label", "predicted", "texts"], model.confused, "Most frequent confusions");
  const rows = model.confusion.map((row, place) => [model.labels[place], ...row]);
  const columns = model.several ? ["right", "missed", "wrong"] : model.labels.map((label) => `predicted ${label}`);
  const made = table(["label", ...columns], rows, "Confusion");
  const most = Math.max(1, ...model.confusion.flat());
  for (const count of made.querySelectorAll("td")) count.style.setProperty("--share", Number(count.textContent) / most);
  made.classList.add("confusion");
  return made;
}

function calibration(model) {
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const picture = Object.assign(element("div", null), { id: "calibration", className: "picture" });
  const rows = model.calibration.map((tenth) => [percent(tenth.confidence), percent(tenth.accuracy), tenth.examples]);
  const values = { datasets: { ...known.calibration.datasets, tenths: model.calibration } };
  const both = element("div", null, picture, table(["how sure", "right", "examples"], rows, "Calibration"));
  both.className = "beside";
  return { both, draw: () => vegaEmbed(picture, { ...known.calibration, ...values }, drawing) };
}

function openModel(id) {
  const model = known.models[id], tenths = calibration(model);
  const others = model.kind === "meta_teacher" ? [model.kind] : [model.kind, "meta_teacher"];
  show(model.title, [
    facts(model.facts),
    element("h3", "Confusion"), confusion(model),
    element("h3", `Calibration: off by ${(100 * model.calibration_error).toFixed(1)} percentage points on average; by chance alone, ${(100 * model.calibration_by_chance).toFixed(1)}`), tenths.both,
    ...examples("Most confident mistakes", model.mistakes, others),
    ...(others.length > 1 ? examples("Where it disagrees with the meta-teacher", model.disagreements, others) : []),
  ]);
  tenths.draw();
}

function openNode(id) {
  const node = known.nodes[id];
  if (!node) { openModel(id); return; }
  const models = node.models.map((name) => {
    const button = element("button", known.models[name].title);
    button.className = `open ${known.models[name].kind}`;
    button.dataset.model = name;
    return element("li", null, button, element("small", ` ${known.models[name].facts[0][1]}`));
  });
  show(node.title, [
    facts(node.facts),
    ...node.tables.flatMap((one) => [element("h3", one.title), table(one.head, one.rows, one.title)]),
    ...(models.length ? [element("h3", "Models"), element("ul", null, ...models)] : []),
  ]);
}

function show(title, parts) {
  document.getElementById("details-title").textContent = title;
  document.getElementById("details-body").replaceChildren(...parts);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function sort(header) {
  const row = header.parentElement, body = [...row.closest("table").tBodies].at(-1);
  const place = [...row.children].indexOf(header);
  const now = header.getAttribute("aria-sort");
  const falling = now ? now === "ascending" : header.classList.contains("number");
  const value = (row) => row.children[place].dataset.value ?? row.children[place].textContent;
  const known = (row) => value(row) !== "";
  const order = (a, b) => (place > 1 ? value(a) - value(b) : value(a).localeCompare(value(b), undefined, { numeric: true }));
  const sorted = [...body.rows].filter(known).sort((a, b) => (falling ? order(b, a) : order(a, b)));
  for (const other of row.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", falling ? "descending" : "ascending");
  body.append(...sorted, ...[...body.rows].filter((row) => !known(row)));
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.model) openModel(button.dataset.model);
  else if (button.dataset.node) { network.signal("current", button.dataset.node).runAsync(); openNode(button.dataset.node); }
  else if (button.dataset.zoom) zoom(Number(button.dataset.zoom));
  else if (button.closest(".sortable thead")) sort(button.parentElement);
});
// Says of a table that it scrolls, where it does.
const widths = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const hint = target.previousElementSibling;
    if (hint?.matches(".hint")) hint.hidden = target.scrollWidth <= target.clientWidth;
  }
});
for (const wide of document.querySelectorAll(".wide")) widths.observe(wide);
window.addEventListener("beforeprint", () => { document.querySelector(".all").open = true; });
window.addEventListener("resize", () => network && fitToPlane().runAsync());
draw();
