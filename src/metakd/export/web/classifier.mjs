// An exported model of single texts in JavaScript: it reads long texts by windows and answers as metakd does.
//
// `library` is @huggingface/transformers, `description` the content of the model's model.json.

export async function loadClassifier(library, name, description) {
  if (description.pairs) throw new Error("this model reads pairs of texts");
  const [tokenizer, model] = await Promise.all([
    library.AutoTokenizer.from_pretrained(name),
    library.AutoModelForSequenceClassification.from_pretrained(name),
  ]);
  return new Classifier(library, tokenizer, model, description);
}

export class Classifier {
  constructor(library, tokenizer, model, description) {
    const { labels, reading, several_labels: several = false, thresholds = labels.map(() => 0.5) } = description;
    if (thresholds.length !== labels.length) throw new Error("model.json has no threshold for each label");
    Object.assign(this, { library, tokenizer, model, labels, reading, several, thresholds });
    // the special tokens before and after a text, which a cut of all tokens would lose
    const [bare, whole] = [false, true].map((special) => this.tokens("a", special));
    const start = whole.indexOf(bare[0]);
    this.around = [whole.slice(0, start), whole.slice(start + bare.length)];
  }

  tokens(text, special) {
    return this.tokenizer.encode(text, { add_special_tokens: special });
  }

  // The probability of each label, in the order of `labels`; each by itself, if a text may have several.
  async probabilities(text) {
    const { most_windows: most, enough } = this.reading;
    const all = this.windows(text);
    const sums = new Array(this.labels.length).fill(0);
    let read = 0;
    for (const window of all.slice(0, most)) {
      const logits = await this.logits(window);
      (this.several ? logits.map(bounded) : logSoftmax(logits)).forEach((value, i) => (sums[i] += value));
      read += 1;
      if (enough != null && Math.max(...softmax(sums)) >= enough) break;
    }
    const means = sums.map((value) => value / read);
    return this.several ? means.map((z) => 1 / (1 + Math.exp(-z))) : softmax(means);
  }

  // Labels with their probabilities, the likeliest first, and which of them the text has.
  async classify(text) {
    const p = await this.probabilities(text);
    const best = p.indexOf(Math.max(...p));
    const has = p.map((each, i) => (this.several ? each > this.thresholds[i] : i === best));
    const answers = this.labels.map((label, i) => ({ label, probability: p[i], has: has[i] }));
    return answers.sort((one, other) => other.probability - one.probability);
  }

  // The token ids of each window of a text, as metakd cuts it: data/windows.py.
  windows(text) {
    const [before, after] = this.around;
    const { max_length: length, most_windows: most } = this.reading;
    const room = length - before.length - after.length;
    const stride = Math.min(this.reading.stride, Math.floor(room / 2));
    const ids = this.tokens(text, false);
    const pieces = [ids.slice(0, room)];
    for (let start = room - stride; start + stride < ids.length && pieces.length <= most; start += room - stride) {
      pieces.push(ids.slice(start, start + room));
    }
    const least = stride + Math.max(1, Math.floor(room / 8));
    if (pieces.length > 1 && pieces.at(-1).length < least) pieces.pop();
    return pieces.map((piece) => [...before, ...piece, ...after]);
  }

  async logits(ids) {
    const tensor = (values) => new this.library.Tensor("int64", BigInt64Array.from(values, BigInt), [1, ids.length]);
    const inputs = { input_ids: tensor(ids), attention_mask: tensor(ids.map(() => 1)) };
    if (this.model.sessions.model.inputNames.includes("token_type_ids")) {
      inputs.token_type_ids = tensor(ids.map(() => 0));
    }
    const { logits } = await this.model(inputs);
    return Array.from(logits.data);
  }
}

// As in inference/long_texts.py.
function bounded(logit) {
  return Math.max(-16, Math.min(16, logit));
}

function softmax(values) {
  const highest = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - highest));
  const sum = powers.reduce((one, other) => one + other, 0);
  return powers.map((power) => power / sum);
}

function logSoftmax(values) {
  return softmax(values).map((p) => Math.log(Math.max(p, 1e-30)));
}
