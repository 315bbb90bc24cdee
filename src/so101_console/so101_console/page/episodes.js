// SPDX-License-Identifier: Apache-2.0
// The episode browser: the episodes of this run and those in the bags in one list, and one or two of them again.

import { Replay } from './replay.js';

const $ = (id) => document.getElementById(id);
const POLL_MS = 400;
const FAILED = ['failure', 'time limit']; // what was cut short by a fault says nothing of the policy
const BEFORE_THE_END = -20;

const make = (tag, values = {}) => Object.assign(document.createElement(tag), values);

export class EpisodeBrowser {
  // `act` sends what a page asks for, `say` shows a sentence.
  constructor({ act, say }) {
    Object.assign(this, { say, own: [], recorded: [], shown: '' });
    const told = {
      say,
      moved: (replay, seconds) => this.#together(replay, seconds),
      label: (row, outcome) => act({ do: 'label', episode: row.episode, outcome }),
      closed: () => this.#draw(),
    };
    this.replays = ['replay', 'replay2'].map((name) => new Replay($('replays'), name, told));
    $('episodes-load').addEventListener('click', () => this.#load());
    $('last-failure').addEventListener('click', () => this.#lastFailure());
  }

  // The episodes of this run; they stay in the list whatever lies in the bags.
  show(rows) {
    this.own = rows;
    this.#draw();
  }

  // The two lists as one: an episode of this run that is in a bag too is shown once, with the pictures of the bag.
  get rows() {
    const bagged = new Map(this.recorded.filter(({ stamp }) => stamp !== '0').map((row) => [row.stamp, row]));
    const own = this.own.map((row) => {
      const kept = bagged.get(row.stamp);
      return { ...row, key: kept?.key ?? row.key, label: kept?.label ?? `This run · ${row.episode}` };
    });
    const mine = new Set(this.own.map(({ stamp }) => stamp));
    return [...own, ...this.recorded.filter(({ stamp }) => stamp === '0' || !mine.has(stamp))];
  }

  // The console reads bag after bag, and says how far it is.
  async #load() {
    const button = $('episodes-load');
    button.disabled = true;
    for (;;) {
      const answer = await fetch('/episodes').catch(() => null);
      const { rows, problems, reading } = answer?.ok ? await answer.json() : { rows: this.recorded, problems: ['The bags could not be read.'], reading: null };
      this.recorded = rows;
      this.#draw();
      $('episodes-problems').replaceChildren(...problems.map((line) => make('li', { textContent: line })));
      if (!reading) break;
      button.textContent = reading.of ? `Reading ${reading.bag}, ${reading.done + 1} of ${reading.of} …` : 'Looking for bags …';
      await new Promise((done) => { setTimeout(done, POLL_MS); });
    }
    button.disabled = false;
    button.textContent = this.recorded.length ? 'Read the bags again' : 'No bag has an episode yet; read again';
  }

  async #lastFailure() {
    const find = () => this.rows.find(({ outcome }) => FAILED.includes(outcome));
    if (!find()?.key) await this.#load();
    const row = find();
    if (!row) return this.say('No episode has failed so far.');
    if (!row.key) return this.say(`Episode ${row.episode} failed (${row.reason || row.outcome}), and it is kept nowhere: start with record:=true.`);
    await this.#open(row, 0, BEFORE_THE_END);
    return this.replays[0].slider.focus({ preventScroll: true }); // the arrow keys go through its steps
  }

  async #open(row, which = 0, from = 0) {
    const replay = this.replays[which];
    if (!await replay.open(row, from)) return this.say('This episode is no longer there.');
    this.#draw();
    replay.figure.scrollIntoView({ block: 'center' });
    return undefined;
  }

  // Two that are open go side by side, each from its own beginning.
  #together(replay, seconds) {
    const other = this.replays.find((each) => each !== replay && !each.figure.hidden);
    if (!other || $('episodes-apart').checked) return;
    other.pause();
    other.showTime(seconds);
  }

  #draw() {
    const rows = this.rows, open = this.replays.map((replay) => replay.open_key);
    for (const replay of this.replays) {
      const now = rows.find(({ key }) => key && key === replay.open_key);
      if (now) replay.update(now);
    }
    $('episodes-together').hidden = open.includes(null);
    const text = JSON.stringify([rows, open]);
    if (text === this.shown) return;
    this.shown = text;
    const focused = document.activeElement?.dataset?.opens;
    $('episodes').replaceChildren(...rows.map((row) => this.#row(row, open)));
    // What the list was drawn anew for must not take the focus away from whoever goes through it by keyboard.
    if (focused) [...$('episodes').querySelectorAll('button')].find(({ dataset }) => dataset.opens === focused)?.focus();
  }

  #row(row, open) {
    const line = make('tr');
    const byHand = row.steps ? `${Math.round((100 * row.intervened) / row.steps)} %` : '–';
    const latency = row.latency_ms === null ? '–' : `${row.latency_ms} ms`;
    const cells = [row.label ?? row.episode, row.outcome || 'unknown', row.steps, byHand, row.interventions, row.dropped,
      row.clamped ?? '–', row.lost ?? '–', latency];
    for (const content of cells) line.append(make('td', { textContent: content }));
    line.children[1].title = row.reason || '';
    line.children[1].className = { success: 'good', failure: 'bad', abort: 'bad' }[row.outcome] || '';
    const last = make('td');
    if (row.key) last.append(this.#button('Replay', row, 0));
    if (row.key && open[0] && open[0] !== row.key) last.append(this.#button('Compare', row, 1));
    line.append(last);
    return line;
  }

  #button(text, row, which) {
    const button = make('button', { type: 'button', textContent: text });
    button.dataset.opens = `${which} ${row.key}`;
    button.setAttribute('aria-label', `${text} episode ${row.label ?? row.episode}`);
    button.addEventListener('click', () => this.#open(row, which));
    return button;
  }
}
