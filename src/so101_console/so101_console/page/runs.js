// SPDX-License-Identifier: Apache-2.0
// The runs of this machine: what each was made with, how it does, two curves in one chart, and the commands to copy.

import { Plot } from './plot.js';
import { Zoom } from './charts.js';

const $ = (id) => document.getElementById(id);
const POLL_MS = 700;
const WHAT = { 'go on': 'Go on with it', trial: 'Put its policy on trial', export: 'Make a dataset of it' };
const SHOWN = [['Success with help', 1, [2, 3]], ['Success without help', 4, null], ['By hand', 5, null]];

const make = (tag, values = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), values);
  element.append(...children);
  return element;
};

export class Runs {
  constructor({ say }) {
    Object.assign(this, { say, curves: new Map(), chosen: [] });
    $('runs-details').addEventListener('toggle', ({ target }) => { if (target.open) this.load(); });
    $('runs-load').addEventListener('click', () => this.load());
    this.zoom = new Zoom($('runs-charts'), () => this.#draw());
    $('runs-charts').setAttribute('aria-label', 'Curves of the chosen runs over their episodes');
    new ResizeObserver(() => this.#draw()).observe($('runs-charts'));
  }

  async load() {
    const answer = await fetch('/runs').catch(() => null);
    if (!answer?.ok) return this.say('The runs could not be read.');
    this.rows = await answer.json();
    $('runs').replaceChildren(...this.rows.map((row) => this.#row(row)));
    $('runs-none').hidden = this.rows.length > 0;
    return undefined;
  }

  #row(row) {
    const line = make('tr');
    const success = row.success === null ? '–'
      : `${Math.round(row.success * 100)} % (${row.between.map((end) => Math.round(end * 100)).join(' to ')} %)`;
    const cells = [row.now ? `${row.name} · goes on now` : row.name, row.made, row.steps, success, row.used];
    line.append(...cells.map((content) => make('td', { textContent: content })));
    line.children[0].className = row.now ? 'good' : '';
    const box = make('input', { type: 'checkbox', checked: this.chosen.includes(row.name) });
    box.setAttribute('aria-label', `Draw the curve of ${row.name}`);
    box.addEventListener('change', () => this.#choose(row.name, box.checked));
    const more = make('button', { type: 'button', textContent: 'Commands' });
    more.setAttribute('aria-label', `Commands for ${row.name}`);
    more.addEventListener('click', () => this.#commands(row));
    line.append(make('td', {}, box), make('td', {}, more));
    return line;
  }

  // At most two: the one that was chosen first makes room.
  async #choose(name, on) {
    this.chosen = [...this.chosen.filter((one) => one !== name), ...(on ? [name] : [])].slice(-2);
    if (on) {
      const answer = await fetch(`/run?name=${encodeURIComponent(name)}`).catch(() => null);
      if (answer?.ok) this.curves.set(name, (await answer.json()).rows);
      else this.say(`The curve of ${name} could not be read.`);
    }
    [...$('runs').querySelectorAll('input')].forEach((box, n) => { box.checked = this.chosen.includes(this.rows[n].name); });
    this.#draw();
  }

  #draw() {
    const shown = this.chosen.filter((name) => this.curves.get(name)?.length);
    $('runs-charts').hidden = !shown.length;
    if (!shown.length) return;
    this.plots ??= SHOWN.map(([title]) => new Plot($('runs-charts'), { title, unit: ' %', scale: 100, top: 1 }));
    if (!this.zoom.plots.length) for (const plot of this.plots) this.zoom.add(plot);
    // Both over the same numbers of episodes; where one has none of that number, its line has a gap there.
    const x = [...new Set(shown.flatMap((name) => this.curves.get(name).map(([at]) => at)))].sort((a, b) => a - b);
    const column = (name, n) => {
      const known = new Map(this.curves.get(name).map((row) => [row[0], row[n]]));
      const first = this.curves.get(name)[0][0], last = this.curves.get(name).at(-1)[0];
      let before = null;
      return x.map((at) => { before = known.get(at) ?? before; return at < first || at > last ? null : before; });
    };
    this.zoom.whole = [x[0], x.at(-1)];
    SHOWN.forEach(([, n, interval], place) => this.plots[place].draw({
      x,
      lines: shown.map((name) => ({ y: column(name, n), name })),
      interval: interval?.map((end) => column(shown[0], end)),
      range: this.zoom.range,
      at: this.zoom.at,
    }));
  }

  #commands(row) {
    $('run-chosen').hidden = false;
    $('run-name').textContent = row.now ? `${row.name} goes on now. Ctrl-C in the terminal of ./so101 up ends it, and saves it.` : row.name;
    $('run-commands').replaceChildren(...Object.entries(row.commands).map(([what, words]) => {
      const code = make('code', { textContent: words });
      const copy = make('button', { type: 'button', textContent: 'Copy' });
      copy.setAttribute('aria-label', `Copy: ${WHAT[what]}`);
      copy.addEventListener('click', () => this.#copy(code));
      const line = make('li', {}, make('b', { textContent: WHAT[what] }), code, copy);
      if (what === 'export') {
        const now = make('button', { type: 'button', textContent: 'Make it now', id: 'run-export' });
        now.addEventListener('click', () => this.#export(row, now));
        line.append(now);
      }
      return line;
    }));
    $('run-chosen').scrollIntoView({ block: 'nearest' });
  }

  // Only a page of this machine, or one that came encrypted, may use the clipboard; elsewhere the words are chosen.
  async #copy(code) {
    getSelection().selectAllChildren(code);
    const copied = await navigator.clipboard?.writeText(code.textContent).then(() => true, () => false);
    this.say(copied ? 'Copied. Paste it in a terminal, in the folder of ./so101.' : 'Press Ctrl-C: the command is chosen.');
  }

  async #export(row, button) {
    const answer = await fetch(`/export?name=${encodeURIComponent(row.name)}`, { method: 'POST' }).catch(() => null);
    const refused = answer?.ok ? (await answer.json()).refused : 'The dataset cannot be made.';
    if (refused) return this.say(refused);
    button.disabled = true;
    for (;;) {
      await new Promise((done) => { setTimeout(done, POLL_MS); });
      const job = await fetch('/job').then((one) => one.json()).catch(() => null);
      if (job?.state === 'runs') {
        $('run-job').textContent = `Making ${job.out}: ${(job.bytes / 1e6).toFixed(1)} MB, ${job.seconds} s`;
        continue;
      }
      button.disabled = false;
      $('run-job').textContent = job?.said || (job?.state === 'done' ? `${job.out} is ready.` : 'The dataset could not be made.');
      return undefined;
    }
  }
}
