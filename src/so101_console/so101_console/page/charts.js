// SPDX-License-Identifier: Apache-2.0
// The curves of this run over its episodes: one chart for each, zoomed together, drawn when something has changed.

import { Plot } from './plot.js';

const STEP = 0.25;

// What is shown of the common axis: all of it, or a part that was chosen with pointer, wheel or keys.
export class Zoom {
  constructor(place, changed) {
    Object.assign(this, { place, changed, range: null, whole: [0, 1], at: null, plots: [], from: null });
    place.tabIndex = 0;
    place.setAttribute('role', 'group');
    place.addEventListener('keydown', (event) => this.#key(event));
  }

  add(plot) {
    const { svg } = plot;
    this.plots.push(plot);
    svg.addEventListener('pointerdown', (event) => {
      if (event.button) return;
      this.from = plot.at(event.clientX);
      svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener('pointermove', (event) => {
      this.at = plot.at(event.clientX);
      if (this.from !== null) for (const each of this.plots) each.choose([this.from, this.at]);
      this.changed();
    });
    svg.addEventListener('pointerup', () => this.#chosen());
    svg.addEventListener('pointercancel', () => this.#chosen(false));
    svg.addEventListener('pointerleave', () => { this.at = null; this.changed(); });
    svg.addEventListener('dblclick', () => this.show(null));
    // The wheel is the page's, unless these charts have the focus or Ctrl is held (as two fingers on a pad say it).
    svg.addEventListener('wheel', (event) => {
      if (!event.ctrlKey && !this.place.contains(document.activeElement)) return;
      event.preventDefault();
      this.by(event.deltaY > 0 ? 1 + STEP : 1 / (1 + STEP), plot.at(event.clientX));
    }, { passive: false });
  }

  // Make what is shown longer or shorter around a number; a whole axis is shown as such, so that it grows.
  by(factor, around) {
    const [from, to] = this.range ?? this.whole;
    this.show([around - (around - from) * factor, around + (to - around) * factor]);
  }

  show(range) {
    const [first, last] = this.whole;
    const from = range && Math.max(first, range[0]), to = range && Math.min(last, range[1]);
    this.range = !range || to - from < 1e-9 || (from <= first && to >= last) ? null : [from, to];
    this.changed();
  }

  #chosen(done = true) {
    const chosen = [this.from, this.at];
    this.from = null;
    for (const each of this.plots) each.choose(null);
    const [from, to] = this.range ?? this.whole;
    // A click chooses nothing.
    if (done && chosen[0] !== null && Math.abs(chosen[1] - chosen[0]) > (to - from) * 0.03) this.show(chosen.sort((a, b) => a - b));
  }

  #key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const [from, to] = this.range ?? this.whole, size = to - from, middle = (from + to) / 2;
    const move = (by) => () => { if (this.range) this.show([Math.max(from + by, this.whole[0]), Math.min(to + by, this.whole[1])]); };
    const meaning = {
      '+': () => this.by(1 / (1 + STEP), middle), '=': () => this.by(1 / (1 + STEP), middle), '-': () => this.by(1 + STEP, middle),
      ArrowLeft: move(-Math.min(size * STEP, from - this.whole[0])), ArrowRight: move(Math.min(size * STEP, this.whole[1] - to)),
      Escape: () => this.show(null), Home: () => this.show(null),
    }[event.key];
    if (!meaning) return;
    event.preventDefault();
    meaning();
  }
}

export class Charts {
  constructor(place) {
    this.place = place;
    place.setAttribute('aria-label', 'Curves over the episodes. Plus and minus zoom, the arrow keys move, Escape shows all; or drag over a part, and double-click.');
    this.zoom = new Zoom(place, () => this.#soon());
    this.clear();
    new ResizeObserver(() => this.#soon()).observe(place);
    document.addEventListener('visibilitychange', () => this.#soon());
  }

  clear() {
    this.rows = [];
    this.#soon();
  }

  // `charts` says what each shows; `rows` take the place of those from `from` on.
  add({ charts, rows, from }) {
    this.rows.length = Math.min(this.rows.length, from);
    this.rows.push(...rows);
    this.charts = charts;
    this.plots ??= charts.map((chart) => new Plot(this.place, chart));
    if (!this.zoom.plots.length) for (const plot of this.plots) this.zoom.add(plot);
    this.#soon();
  }

  // Once a frame at most, and not for nobody.
  #soon() {
    if (this.waiting || document.hidden) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.#draw(); });
  }

  #draw() {
    if (!this.plots || !this.rows.length) return;
    const x = this.rows.map((row) => row[0]);
    const column = (n) => this.rows.map((row) => row[n]);
    this.zoom.whole = [x[0], x.at(-1)];
    this.charts.forEach(({ names, said = [], interval, healthy }, n) => {
      const lines = names.map((name, line) => ({ y: column(name), name: said[line] }));
      const ends = healthy?.map((end) => (typeof end === 'string' ? lines[1].y : end));
      this.plots[n].draw({ x, lines, interval: interval?.map(column), healthy: ends, range: this.zoom.range, at: this.zoom.at });
    });
  }
}
