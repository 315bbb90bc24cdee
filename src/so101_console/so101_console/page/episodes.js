// SPDX-License-Identifier: Apache-2.0
// The episode browser: the episodes of this run, those in the bags, and one of them step by step.

const $ = (id) => document.getElementById(id);
const STEP_MS = 100;

export class EpisodeBrowser {
  constructor() {
    this.recorded = null;
    this.shown = '';
    $('episodes-load').addEventListener('click', () => this.#load());
    $('replay-step').addEventListener('input', () => this.#showStep());
    $('replay-play').addEventListener('click', () => this.#play());
  }

  // The episodes of this run, until the human looks at the bags.
  show(rows) {
    if (!this.recorded) this.#list(rows);
  }

  // Look through the bags, and show the last episode that ended like that; says why where there is none.
  async showLast(outcomes) {
    await this.#load();
    const row = this.recorded.find(({ outcome }) => outcomes.includes(outcome));
    if (!row) return `No recorded episode has ended with ${outcomes.join(' or ')}.`;
    await this.#open(row.key);
    $('replay').scrollIntoView({ block: 'center' });
    $('replay-step').focus(); // the arrow keys go through its steps
    return '';
  }

  async #load() {
    const button = $('episodes-load');
    button.disabled = true;
    button.textContent = 'Reading the bags …';
    const answer = await fetch('/episodes');
    const { rows, problems } = answer.ok ? await answer.json() : { rows: [], problems: ['The bags could not be read.'] };
    this.recorded = rows;
    this.#list(rows);
    $('episodes-problems').replaceChildren(...problems.map((line) => Object.assign(document.createElement('li'), { textContent: line })));
    button.disabled = false;
    button.textContent = this.recorded.length ? 'Read the bags again' : 'No bag has an episode yet; read again';
  }

  #list(rows) {
    const text = JSON.stringify(rows);
    if (text === this.shown) return;
    this.shown = text;
    $('episodes').replaceChildren(...rows.map((row) => this.#row(row)));
  }

  #row(row) {
    const line = document.createElement('tr');
    const byHand = row.steps ? `${Math.round((100 * row.intervened) / row.steps)} %` : '–';
    const latency = row.latency_ms === null ? '–' : `${row.latency_ms} ms`;
    const cells = [row.label ?? row.episode, row.outcome || 'unknown', row.steps, byHand, row.interventions, row.dropped,
      row.clamped ?? '–', row.lost ?? '–', latency];
    for (const content of cells) line.append(Object.assign(document.createElement('td'), { textContent: content }));
    line.children[1].title = row.reason || '';
    line.children[1].className = { success: 'good', failure: 'bad', abort: 'bad' }[row.outcome] || '';
    const last = document.createElement('td');
    if (row.key) {
      const button = Object.assign(document.createElement('button'), { type: 'button', textContent: 'Replay' });
      button.setAttribute('aria-label', `Replay episode ${row.label ?? row.episode}`);
      button.addEventListener('click', () => this.#open(row.key));
      last.append(button);
    }
    line.append(last);
    return line;
  }

  async #open(key) {
    const answer = await fetch(`/episode?key=${encodeURIComponent(key)}`);
    if (!answer.ok) return;
    this.replay = await answer.json();
    this.replay.key = key;
    clearInterval(this.playing);
    $('replay').hidden = false;
    $('replay').scrollIntoView({ block: 'nearest' });
    $('replay-title').textContent = `${this.replay.label}: ${this.replay.outcome || 'no outcome'}`;
    this.#newFrames();
    $('replay-step').max = this.replay.steps.length - 1;
    $('replay-step').value = 0;
    this.#showStep();
  }

  // A picture for each camera beside the first one.
  #newFrames() {
    for (const frame of this.frames ?? []) frame.remove();
    this.frames = (this.replay.cameras ?? []).slice(1).map((name) => {
      const frame = Object.assign(document.createElement('img'), { alt: `Picture of the replayed step, camera ${name}` });
      return frame;
    });
    $('replay-frame').after(...this.frames);
  }

  #showStep() {
    if (!this.replay) return;
    const index = Number($('replay-step').value);
    const step = this.replay.steps[index];
    $('replay-number').textContent = index;
    const picture = (camera) => `/episode_frame?key=${encodeURIComponent(this.replay.key)}&index=${step.index}&camera=${camera}`;
    [$('replay-frame'), ...this.frames].forEach((frame, camera) => { frame.src = picture(camera); });
    $('replay-action').textContent = step.said;
  }

  #play() {
    clearInterval(this.playing);
    const slider = $('replay-step');
    if (Number(slider.value) >= Number(slider.max)) slider.value = 0;
    this.playing = setInterval(() => {
      if (Number(slider.value) >= Number(slider.max)) { clearInterval(this.playing); return; }
      slider.value = Number(slider.value) + 1;
      this.#showStep();
    }, STEP_MS);
  }
}
