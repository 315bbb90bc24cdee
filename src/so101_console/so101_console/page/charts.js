// SPDX-License-Identifier: Apache-2.0
// The learning curves: one small chart for each, drawn when something has changed.

const KEPT = 2000;

export class Charts {
  constructor(place) {
    this.place = place;
    this.clear();
    new ResizeObserver(() => this.#draw()).observe(place);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#draw());
  }

  clear() {
    this.rows = [];
    this.charts = [];
    this.place.replaceChildren();
  }

  // `charts` says what each shows: title, columns of the rows, and the largest value where that is known.
  add({ charts, rows, from }) {
    if (from === 0) this.rows = [];
    this.rows.push(...rows);
    if (this.rows.length > KEPT) this.rows = this.rows.filter((_, n) => n % 2);
    if (!this.charts.length) this.charts = charts.map((chart) => this.#make(chart));
    this.#draw();
  }

  #make(chart) {
    const figure = document.createElement('figure');
    const caption = document.createElement('figcaption');
    const value = document.createElement('b');
    const canvas = document.createElement('canvas');
    caption.append(chart.title, value);
    canvas.setAttribute('role', 'img');
    figure.append(caption, canvas);
    this.place.append(figure);
    return { ...chart, value, canvas };
  }

  #draw() {
    const style = getComputedStyle(document.documentElement);
    const colours = [style.getPropertyValue('--accent'), style.getPropertyValue('--you')];
    const soft = style.getPropertyValue('--line');
    for (const chart of this.charts) this.#drawOne(chart, colours, soft);
  }

  #drawOne({ canvas, value, columns, unit, title, top, scale = 1 }, colours, soft) {
    const width = canvas.clientWidth, height = canvas.clientHeight, dots = devicePixelRatio || 1;
    canvas.width = width * dots;
    canvas.height = height * dots;
    const pen = canvas.getContext('2d');
    pen.scale(dots, dots);
    const numbers = columns.map((column) => this.rows.map((row) => row[column]));
    const all = numbers.flat().filter((n) => n !== null);
    const high = top ?? Math.max(...all, 1e-6), low = Math.min(0, ...all);
    pen.strokeStyle = soft;
    pen.strokeRect(0.5, 0.5, width - 1, height - 1);
    numbers.forEach((series, which) => {
      pen.strokeStyle = colours[which];
      pen.lineWidth = 2;
      pen.setLineDash(which ? [5, 4] : []);
      pen.beginPath();
      let drawing = false;
      series.forEach((number, n) => {
        if (number === null) { drawing = false; return; }
        const x = (n / Math.max(series.length - 1, 1)) * (width - 6) + 3;
        const y = height - 4 - ((number - low) / (high - low || 1)) * (height - 8);
        if (drawing) pen.lineTo(x, y); else pen.moveTo(x, y);
        drawing = true;
      });
      pen.stroke();
    });
    const last = numbers.map((series) => series.findLast((n) => n !== null));
    const said = last.map((n) => (n === undefined ? '–' : `${tidy(n * scale)}${unit}`)).join(' of ');
    value.textContent = said;
    canvas.setAttribute('aria-label', `${title}: ${said}`);
  }
}

function tidy(number) {
  return Math.abs(number) >= 100 ? number.toFixed(0) : Math.abs(number) >= 10 ? number.toFixed(1) : number.toFixed(2);
}
