// The labels of texts by transformers.js, from the files of an exported model:
//     node classify.mjs FOLDER pipeline|windows|labels < texts.json
// prints for each text the probability of each label: by a plain pipeline, which cuts long texts, or by windows; or 1
// for each label that it is given.

import { readFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import * as library from "@huggingface/transformers";
import { loadClassifier } from "../../src/metakd/export/web/classifier.mjs";

const folder = resolve(process.argv[2]);
const texts = JSON.parse(readFileSync(0, "utf8"));
library.env.allowRemoteModels = false;
library.env.localModelPath = dirname(folder);
const answers = [];
if (process.argv[3] === "pipeline") {
  const classify = await library.pipeline("text-classification", basename(folder), { device: "cpu" });
  for (const text of texts) {
    const scores = await classify(text, { top_k: null });
    answers.push(Object.fromEntries(scores.map(({ label, score }) => [label, score])));
  }
} else {
  const description = JSON.parse(readFileSync(join(folder, "model.json"), "utf8"));
  const classifier = await loadClassifier(library, basename(folder), description);
  for (const text of texts) {
    const scores = await classifier.classify(text);
    const shown = ({ probability, has }) => (process.argv[3] === "labels" ? Number(has) : probability);
    answers.push(Object.fromEntries(scores.map((score) => [score.label, shown(score)])));
  }
}
console.log(JSON.stringify(answers));
