// SPDX-License-Identifier: Apache-2.0
// One episode again: its pictures, a time line to scrub, who drove, what was told the arm, Q, reward score and events.

import { svg } from './plot.js';

const SPEEDS = [0.25, 0.5, 1, 2, 4];
const STRIP = 9, ACTIONS = [13, 41], WORDS = [45, 69], HEIGHT = 72;
const LABELS = [['success', 'Success'], ['failure', 'Failure'], ['discard', 'Discard']];
const FILM_MS = 700;

const make = (tag, values = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), values);
  element.append(...children);
  return element;
};

export class Replay {
  // `moved` hears of each time that a human goes to [s]; `label(row, outcome)` corrects one; `closed` when it is shut.
  constructor(place, name, { moved, label, closed, say }) {
    Object.assign(this, { name, moved, label, closed, say, playing: 0, row: null, time: 0 });
    const part = (what) => `${name}-${what}`;
    this.image = make('img', { id: part('frame'), alt: 'Picture of the replayed step' });
    this.pictures = make('div', { className: 'pictures' }, this.image);
    this.title = make('b', { id: part('title') });
    this.number = make('output', { id: part('number') });
    this.slider = make('input', { id: part('step'), type: 'range', min: 0, max: 0, value: 0 });
    this.line = svg('svg', { class: 'timeline', 'aria-hidden': 'true' });
    this.said = make('span', { id: part('action'), className: 'said' });
    this.button = make('button', { id: part('play'), type: 'button', textContent: 'Play' });
    this.speed = make('select', { id: part('speed') }, ...SPEEDS.map((n) => make('option', { value: n, textContent: `${n}×`, selected: n === 1 })));
    this.filmed = make('button', { id: part('film'), type: 'button', textContent: 'Film' });
    this.marks = make('ul', { className: 'coach', id: part('events') });
    this.labels = make('span', { className: 'row', id: part('labels') }, 'It was', ...LABELS.map(([outcome, text]) => {
      const button = make('button', { type: 'button', textContent: text });
      button.dataset.label = outcome;
      button.addEventListener('click', () => this.label(this.row, outcome));
      return button;
    }));
    const close = make('button', { type: 'button', textContent: 'Close', id: part('close') });
    const step = make('label', { htmlFor: part('step') }, 'Step ', this.number);
    const speed = make('label', { htmlFor: part('speed'), className: 'hidden', textContent: 'Speed' });
    this.figure = make('figure', { id: name, className: 'replay', hidden: true }, this.pictures, make('figcaption', {},
      this.title, step, this.line, this.slider, make('span', { className: 'row' }, this.button, speed, this.speed, this.filmed, close),
      this.said, this.labels, this.marks));
    place.append(this.figure);
    this.slider.addEventListener('input', () => this.#goTo(Number(this.slider.value)));
    this.button.addEventListener('click', () => (this.playing ? this.pause() : this.#play()));
    this.filmed.addEventListener('click', () => this.#film());
    close.addEventListener('click', () => { this.pause(); this.figure.hidden = true; this.closed(); });
    const drag = (event) => { if (event.buttons & 1) this.#goTo(this.#stepAt(event.clientX)); };
    this.line.addEventListener('pointerdown', (event) => { this.line.setPointerCapture(event.pointerId); drag(event); });
    this.line.addEventListener('pointermove', drag);
    new ResizeObserver(() => this.#draw()).observe(this.line);
  }

  // Fetch an episode and show it; `from` says at which step, counted from the end where it is negative.
  async open(row, from = 0) {
    const answer = await fetch(`/episode?key=${encodeURIComponent(row.key)}`);
    if (!answer.ok) return false;
    this.pause();
    this.row = row;
    this.episode = await answer.json();
    const { steps, cameras } = this.episode;
    if (!steps.length) return false;
    for (const image of [...this.pictures.children].slice(1)) image.remove();
    this.pictures.append(...(cameras ?? []).slice(1).map((name) => make('img', { alt: `Picture of the replayed step, camera ${name}` })));
    this.slider.max = steps.length - 1;
    this.figure.hidden = false;
    this.update(row);
    this.marks.replaceChildren(...(this.episode.events ?? []).map(({ step, said }) => make('li', { textContent: `Step ${steps[step].index}: ${said}` })));
    this.#draw();
    this.show(from < 0 ? Math.max(steps.length + from, 0) : Math.min(from, steps.length - 1));
    return true;
  }

  // The outcome may have been corrected meanwhile.
  update(row) {
    this.row = row;
    this.title.textContent = `${row.label ?? `Episode ${row.episode}`}: ${row.outcome || 'no outcome'}`;
    this.labels.hidden = !row.correctable;
    for (const button of this.labels.children) button.setAttribute('aria-pressed', String(button.dataset.label === row.outcome));
  }

  get open_key() { return this.figure.hidden ? null : this.episode?.key; }

  show(step) {
    const { steps } = this.episode, now = steps[step];
    this.step = step;
    this.time = now.at;
    this.slider.value = step;
    this.number.textContent = now.index;
    [...this.pictures.children].forEach((image, camera) => {
      if (this.playing && !image.complete) return; // a slow line shows fewer pictures, not late ones
      image.src = `/episode_frame?key=${encodeURIComponent(this.episode.key)}&index=${now.index}&camera=${camera}`;
    });
    const words = [now.said];
    if (now.q !== null) words.push(`Q ${now.q}`);
    if (now.score !== null) words.push(`reward score ${now.score}`);
    this.said.textContent = words.join(' · ');
    this.slider.setAttribute('aria-valuetext', `step ${now.index}, ${this.said.textContent}`);
    this.#drawHead();
  }

  // The step that ran at a time since the beginning [s].
  showTime(seconds) {
    const place = this.episode.steps.findLastIndex(({ at }) => at <= seconds + 1e-6);
    this.show(Math.max(place, 0));
  }

  pause() {
    cancelAnimationFrame(this.playing);
    this.playing = 0;
    this.button.textContent = 'Play';
  }

  #play() {
    const { steps } = this.episode, end = steps.at(-1).at;
    let time = this.step === steps.length - 1 ? 0 : this.time, before = performance.now();
    this.button.textContent = 'Pause';
    const tick = (now) => {
      time += ((now - before) / 1000) * Number(this.speed.value);
      before = now;
      this.playing = requestAnimationFrame(tick);
      const step = Math.max(steps.findLastIndex(({ at }) => at <= time), 0);
      if (step !== this.step) { this.show(step); this.moved(this, time); }
      if (time >= end) this.pause();
    };
    this.playing = requestAnimationFrame(tick);
  }

  #goTo(step) {
    this.pause();
    this.show(step);
    this.moved(this, this.time);
  }

  #stepAt(x) {
    const box = this.line.getBoundingClientRect(), last = this.episode.steps.length - 1;
    return Math.round(Math.min(1, Math.max(0, (x - box.left) / box.width)) * last);
  }

  #draw() {
    const width = this.line.clientWidth;
    if (!this.episode || !width) return;
    const { steps, events } = this.episode, last = Math.max(steps.length - 1, 1);
    const x = (n) => ((n / last) * (width - 2) + 1).toFixed(1);
    this.line.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
    const parts = [];
    let from = 0;
    steps.forEach(({ who }, n) => { // a colour for each stretch of who drove
      if (n + 1 < steps.length && steps[n + 1].who === who) return;
      const end = Math.min(n + 1, last);
      parts.push(svg('rect', { class: `who ${who}`, x: x(from), y: 0, width: Math.max(x(end) - x(from), 1), height: STRIP }));
      from = n + 1;
    });
    const trace = (values, [top, bottom], low, high, name) => {
      let d = '', drawing = false;
      values.forEach((value, n) => {
        if (value === null || value === undefined) { drawing = false; return; }
        const y = bottom - ((Math.min(Math.max(value, low), high) - low) / (high - low)) * (bottom - top);
        d += `${drawing ? 'L' : 'M'}${x(n)} ${y.toFixed(1)}`;
        drawing = true;
      });
      if (d) parts.push(svg('path', { class: `trace ${name}`, d }));
    };
    const moved = steps.flatMap(({ action }) => (action ? action.slice(0, 3).map(Math.abs) : []));
    const most = Math.max(...moved, 1);
    ['x', 'y', 'z'].forEach((name, axis) => trace(steps.map(({ action }) => action?.[axis]), ACTIONS, -most, most, `move-${name}`));
    trace(steps.map(({ action }) => action?.[3]), ACTIONS, 0, 1, 'grip');
    const highest = Math.max(1, ...steps.map(({ q }) => q ?? 0));
    trace(steps.map(({ q }) => q), WORDS, 0, highest, 'q');
    trace(steps.map(({ score }) => score), WORDS, 0, 1, 'score');
    for (const { step, said } of events ?? []) {
      const mark = svg('path', { class: 'mark-event', d: `M${x(step)} 0V${HEIGHT}` });
      mark.append(Object.assign(svg('title'), { textContent: said }));
      parts.push(mark);
    }
    this.head = svg('path', { class: 'head' });
    this.line.replaceChildren(...parts, this.head);
    this.#drawHead();
  }

  #drawHead() {
    const width = this.line.clientWidth, last = Math.max((this.episode?.steps.length ?? 1) - 1, 1);
    this.head?.setAttribute('d', `M${((this.step ?? 0) / last) * (width - 2) + 1} 0V${HEIGHT}`);
  }

  // The film is made by a process that yields to the arm; it is fetched when it is whole.
  async #film() {
    const key = encodeURIComponent(this.episode.key), button = this.filmed;
    const asked = await fetch(`/film?key=${key}`, { method: 'POST' });
    const refused = asked.ok ? (await asked.json()).refused : 'The film cannot be made.';
    if (refused) return this.say(refused);
    button.disabled = true;
    for (;;) {
      await new Promise((done) => { setTimeout(done, FILM_MS); });
      const job = await (await fetch('/job')).json().catch(() => null);
      if (!job || job.state !== 'runs') {
        button.disabled = false;
        button.textContent = 'Film';
        if (job?.state === 'done') make('a', { href: `/film?key=${key}`, download: '' }).click();
        else this.say(job?.said || 'The film could not be made.');
        return undefined;
      }
      button.textContent = `Making the film, ${job.seconds} s`;
    }
  }
}
