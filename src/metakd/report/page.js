"use strict";
// Draws the pictures and answers clicks. Whatever comes from data is set as text, never as HTML.
const known = JSON.parse(document.getElementById("known").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const dialog = document.getElementById("details");
let network = null;

function look() {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim(), line = style.getPropertyValue("--line").trim();
  const words = { labelColor: ink, titleColor: ink };
  const place = window.innerWidth < 600 ? { orient: "bottom", columns: 3, layout: { bottom: { direction: "vertical", anchor: "start" } } } : {};
  return {
    background: "transparent", view: { stroke: line },
    axis: { ...words, gridColor: line, domainColor: line, tickColor: line }, legend: { ...words, ...place, symbolBaseFillColor: ink },
    header: words,
    title: { color: ink }, range: { category: { scheme: dark.matches ? "set2" : "dark2" } },
  };
}

async function draw() {
  const options = { actions: false, renderer: "svg", ast: true };
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  network = (await vegaEmbed("#graph", known.network, options)).view;
  await fitToPlane(network.signal("ink", ink)).runAsync();
  let pressed = [0, 0];
  network.addEventListener("pointerdown", (event) => { pressed = [event.clientX, event.clientY]; });
  network.addEventListener("click", (event, item) => {
    const moved = Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > 4;
    if (!moved && item && item.mark.name === "node") openNode(item.datum.id);
  });
  for (const [name, specification] of Object.entries(known.pictures)) {
    await vegaEmbed(`#${name}`, specification, { ...options, config: look() });
  }
  document.documentElement.dataset.drawn = "true";
}

function fitToPlane(view) {
  const side = document.querySelector(".plane").clientWidth - 2 * known.network.padding;
  return view.width(side).height(side);
}

function zoom(factor) {
  const now = network.signal("zoom");
  network.signal("zoom", factor === 0 ? 1 : Math.min(4, Math.max(0.5, now * factor))).runAsync();
}

function openNode(id) {
  const [kind, ...rest] = id.split(":");
  if (kind === "student") openModel(id);
  if (kind === "meta_teacher") openModel(known.models.find((model) => model.model === "meta_teacher").id);
  if (kind === "domain") openModel(`student:${rest.join(":")}`);
}

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

function table(headings, rows) {
  const cells = (row) => row.map((value, place) => element(place ? "td" : "th", value));
  const head = element("tr", null, ...headings.map((heading) => element("th", heading)));
  const body = rows.map((row) => element("tr", null, ...cells(row)));
  return element("table", null, element("thead", null, head), element("tbody", null, ...body));
}

function examples(found) {
  if (!found.length) return element("p", "None.");
  const lines = found.map((example) => {
    const said = Object.entries(example.said).map(([name, [label, sure]]) =>
      `${name.replace("_", "-")}: ${label} (${Math.round(100 * sure)} %)`).join("; ");
    return element("li", null, element("strong", `${example.id}, labelled ${example.label}. ${said}. `),
      element("span", example.texts.join(" / ")));
  });
  return element("ul", null, ...lines);
}

function openModel(id) {
  const model = known.models.find((one) => one.id === id);
  if (!model) return;
  document.getElementById("details-title").textContent = model.title;
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  document.getElementById("details-body").replaceChildren(
    element("h3", "Confusion: labels down, what the model said across"),
    table(["", ...model.labels], model.confusion.map((row, place) => [model.labels[place], ...row])),
    element("h3", "Calibration"),
    table(["confidence", "right", "examples"],
      model.calibration.map((bin) => [percent(bin.confidence), percent(bin.accuracy), bin.examples])),
    element("h3", "Most confident mistakes"), examples(model.mistakes),
    ...(model.model === "meta_teacher" ? []
      : [element("h3", "Where it disagrees with the meta-teacher"), examples(model.disagreements)]),
  );
  dialog.showModal();
}

function sort(heading) {
  const row = heading.parentElement, body = row.closest("table").tBodies[0];
  const place = [...row.children].indexOf(heading);
  const falling = heading.getAttribute("aria-sort") === "ascending";
  const value = (line) => line.children[place].dataset.value ?? line.children[place].textContent;
  const order = (a, b) => (isNaN(value(a)) ? value(a).localeCompare(value(b)) : value(a) - value(b));
  const lines = [...body.rows].sort((a, b) => (falling ? order(b, a) : order(a, b)));
  for (const other of row.children) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
  body.append(...lines);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.model) openModel(button.dataset.model);
  else if (button.dataset.node) { network.signal("current", button.dataset.node).runAsync(); openNode(button.dataset.node); }
  else if (button.dataset.zoom) zoom(Number(button.dataset.zoom));
  else if (button.closest(".sortable thead")) sort(button.parentElement);
});
dark.addEventListener("change", draw);
window.addEventListener("resize", () => network && fitToPlane(network).runAsync());
draw();
