// The page in which a text is typed: models run here, and no text leaves the browser.

import * as library from "./transformers.min.js";
import { loadClassifier } from "./classifier.mjs";

const PAUSE = 150; // milliseconds without a key, after which the text is read
const LOADING = "The model is loading.";
const READING = "Reading the text …";
const READY = "The model runs in this page; what you type is not sent anywhere.";
const [domain, text, answers, status] = ["domain", "text", "answers", "status"].map((id) => document.getElementById(id));
const models = JSON.parse(document.getElementById("models").textContent); // name of a domain -> its folder
const loaded = new Map();
let latest = 0;
let timer;

const { env } = library;
const runtime = (kind) => new URL(`./ort-wasm-simd-threaded.asyncify.${kind}`, import.meta.url).href;
env.allowRemoteModels = false;
env.allowLocalModels = true;
env.useBrowserCache = false; // which goes by address alone, and would keep the models of an earlier export
env.localModelPath = new URL("../", import.meta.url).pathname;
env.backends.onnx.wasm.wasmPaths = { mjs: runtime("mjs"), wasm: runtime("wasm") };

async function load(folder) {
  const name = encodeURIComponent(folder);
  const answer = await fetch(new URL(`../${name}/model.json`, import.meta.url));
  if (!answer.ok) throw new Error(`${folder}/model.json is missing`);
  const description = await answer.json();
  return loadClassifier(library, name, description);
}

function classifier(name) {
  if (!loaded.has(name)) loaded.set(name, load(models[name]));
  loaded.get(name).catch(() => loaded.delete(name)); // so that the next try loads again
  return loaded.get(name);
}

function row({ label, probability, has }) {
  const [item, name, share, track, bar] = ["li", "span", "span", "div", "div"].map((tag) => document.createElement(tag));
  name.textContent = label;
  share.textContent = `${(100 * probability).toFixed(1)} %`;
  bar.style.width = `${100 * probability}%`;
  item.classList.toggle("has", has);
  track.append(bar);
  item.append(name, share, track);
  return item;
}

// What is on the page, or on its way to it, is of another text or domain.
function outdate() {
  delete document.documentElement.dataset.ready;
  return ++latest;
}

async function update() {
  const mine = outdate();
  try {
    const model = await classifier(domain.value);
    if (mine === latest) status.textContent = READING;
    const classes = text.value.trim() ? await model.classify(text.value) : [];
    if (mine !== latest) return; // the text has changed meanwhile
    answers.replaceChildren(...classes.map(row));
    status.textContent = READY;
    document.documentElement.dataset.ready = "";
  } catch (error) {
    if (mine !== latest) return;
    answers.replaceChildren();
    status.textContent = `The model cannot be used: ${error.message ?? error}`;
  }
}

for (const name of Object.keys(models)) domain.add(new Option(name, name));
document.getElementById("domains").hidden = domain.length === 1;
domain.addEventListener("change", () => {
  answers.replaceChildren(); // which are another model's
  status.textContent = LOADING;
  update();
});
text.addEventListener("input", () => {
  outdate();
  clearTimeout(timer);
  timer = setTimeout(update, PAUSE);
});
status.textContent = LOADING;
update();
