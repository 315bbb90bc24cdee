// SPDX-License-Identifier: Apache-2.0
// One chart as SVG: axes with numbers, lines, the interval around the first one, the healthy range as a band.

const SVG = 'http://www.w3.org/2000/svg';
const LEFT = 38, RIGHT = 8, TOP = 6, BOTTOM = 17;
const LEAST = 60;

export function svg(tag, values = {}) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(values)) element.setAttribute(name, value);
  return element;
}

// Round numbers from low to high, about as many as are asked for.
export function ticks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return Array.from({ length: Math.max(last - first + 1, 0) }, (_, n) => Number(((first + n) * step).toPrecision(12)));
}

export function tidy(number) {
  const size = Math.abs(number);
  if (size >= 10000) return `${tidy(number / 1000)}k`;
  return size >= 100 || Number.isInteger(number) ? number.toFixed(0) : size >= 10 ? number.toFixed(1) : number.toFixed(2);
}

export class Plot {
  constructor(place, { title, unit = '', scale = 1, top = null, below = 'episode' }) {
    Object.assign(this, { title, unit, scale, top, below });
    this.figure = document.createElement('figure');
    const caption = document.createElement('figcaption');
    this.value = document.createElement('b');
    this.svg = svg('svg', { role: 'img' });
    this.zone = svg('rect', { class: 'healthy' });
    this.interval = svg('path', { class: 'interval' });
    this.axes = svg('g', { class: 'axes' });
    this.lines = svg('g');
    this.chosen = svg('rect', { class: 'chosen', visibility: 'hidden' });
    this.svg.append(this.zone, this.axes, this.interval, this.lines, this.chosen);
    caption.append(title, this.value);
    this.figure.append(caption, this.svg);
    place.append(this.figure);
  }

  // x: where the points stand; lines: {y, name} each; interval: [low, high] of the first; healthy: [low, high], numbers
  // or lists; range: what is shown of x; at: where the pointer is, whose numbers are said instead of the last ones.
  draw({ x, lines, interval = null, healthy = null, range = null, at = null }) {
    const known = lines.some(({ y }) => y.some(isNumber));
    this.figure.hidden = !known;
    if (!known) return;
    const width = this.svg.clientWidth, height = this.svg.clientHeight;
    if (width < LEAST) return;
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    this.width = width;
    this.range = range ?? [x[0], x.at(-1)];
    const [from, to] = this.range;
    const inside = x.map((n) => n >= from && n <= to);
    const seen = [...lines.map(({ y }) => y), ...(interval ?? [])].flatMap((y) => y.filter((n, i) => inside[i] && isNumber(n)));
    const low = Math.min(0, ...seen), high = this.top ?? (Math.max(...seen, 0) || 1);
    this.toX = (n) => LEFT + ((n - from) / (to - from || 1)) * (width - LEFT - RIGHT);
    const toY = (n) => height - BOTTOM - ((n - low) / (high - low || 1)) * (height - TOP - BOTTOM);
    this.#axes(ticks(from, to, width / 60), ticks(low * this.scale, high * this.scale, 3), toY, height);
    this.#band(healthy, low, high, toY);
    this.interval.setAttribute('d', interval ? area(x, interval, inside, this.toX, toY) : '');
    this.lines.replaceChildren(...lines.map(({ y }, n) => svg('path', { class: `line line${n}`, d: path(x, y, inside, this.toX, toY) })));
    this.#say(x, lines, interval, healthy, at);
  }

  // What number of x is below a point of the screen.
  at(clientX) {
    const box = this.svg.getBoundingClientRect(), [from, to] = this.range ?? [0, 1];
    const share = (clientX - box.left - LEFT) / Math.max(box.width - LEFT - RIGHT, 1);
    return from + Math.min(1, Math.max(0, share)) * (to - from);
  }

  choose(range) {
    this.chosen.setAttribute('visibility', range ? 'visible' : 'hidden');
    if (!range || !this.toX) return;
    const [a, b] = range.map(this.toX).sort((one, two) => one - two);
    const height = this.svg.clientHeight;
    for (const [name, value] of Object.entries({ x: a, y: TOP, width: b - a, height: height - TOP - BOTTOM })) this.chosen.setAttribute(name, value);
  }

  #axes(along, up, toY, height) {
    const parts = [];
    const text = (x, y, anchor, content) => {
      const label = svg('text', { x, y, 'text-anchor': anchor });
      label.textContent = content;
      return label;
    };
    for (const number of up) {
      const y = toY(number / this.scale);
      parts.push(svg('path', { d: `M${LEFT} ${y.toFixed(1)}H${this.width - RIGHT}` }), text(LEFT - 4, y + 4, 'end', tidy(number)));
    }
    const last = along.length - 1;
    along.forEach((number, n) => {
      const x = this.toX(number);
      parts.push(svg('path', { d: `M${x.toFixed(1)} ${height - BOTTOM}v3` }));
      if (x > LEFT + 14 || n === last) parts.push(text(Math.min(x, this.width - RIGHT - 8), height - 4, 'middle', tidy(number)));
    });
    parts.push(text(0, height - 4, 'start', this.below));
    this.axes.replaceChildren(...parts);
  }

  #band(healthy, low, high, toY) {
    const [from, to] = (healthy ?? []).map((end) => (Array.isArray(end) ? end.findLast(isNumber) : end));
    const shown = isNumber(from) || isNumber(to);
    this.zone.setAttribute('visibility', shown ? 'visible' : 'hidden');
    if (!shown) return;
    const top = toY(Math.min(to ?? high, high)), bottom = toY(Math.max(from ?? low, low));
    for (const [name, value] of Object.entries({ x: LEFT, y: top, width: this.width - LEFT - RIGHT, height: Math.max(bottom - top, 0) })) {
      this.zone.setAttribute(name, value);
    }
  }

  #say(x, lines, interval, healthy, at) {
    const nearest = (y) => {
      if (at === null) return y.findLastIndex(isNumber);
      let found = -1;
      y.forEach((n, i) => { if (isNumber(n) && (found < 0 || Math.abs(x[i] - at) < Math.abs(x[found] - at))) found = i; });
      return found;
    };
    const value = (n) => `${tidy(n * this.scale)}${this.unit}`;
    const said = lines.map(({ y, name }, n) => {
      const i = nearest(y);
      if (i < 0) return '';
      const between = n || !interval || !isNumber(interval[0][i]) ? ''
        : ` (${tidy(interval[0][i] * this.scale)} to ${value(interval[1][i])})`;
      return `${value(y[i])}${between}${name ? ` ${name}` : ''}`;
    }).filter(Boolean).join(', ');
    if (this.value.textContent !== said) this.value.textContent = said;
    const ends = (healthy ?? []).map((end) => (Array.isArray(end) ? end.findLast(isNumber) : end));
    const well = !ends.some(isNumber) ? '' : isNumber(ends[0]) ? `; healthy from ${value(ends[0])}` : `; healthy up to ${value(ends[1])}`;
    const [from, to] = this.range;
    this.svg.setAttribute('aria-label', `${this.title}: ${said}${well}; ${this.below} ${tidy(Math.round(from))} to ${tidy(Math.round(to))}`);
  }
}

const isNumber = (n) => typeof n === 'number' && Number.isFinite(n);

// A point beyond each end of what is shown is drawn too, so that lines reach the edge; what is cut is cut by the SVG.
function path(x, y, inside, toX, toY) {
  let d = '', drawing = false;
  for (let i = 0; i < x.length; i += 1) {
    if (!isNumber(y[i]) || !(inside[i] || inside[i + 1] || inside[i - 1])) { drawing = false; continue; }
    d += `${drawing ? 'L' : 'M'}${toX(x[i]).toFixed(1)} ${toY(y[i]).toFixed(1)}${drawing ? '' : 'h.01'}`;
    drawing = true;
  }
  return d;
}

function area(x, [low, high], inside, toX, toY) {
  const shown = x.map((_, i) => i).filter((i) => inside[i] && isNumber(low[i]) && isNumber(high[i]));
  if (shown.length < 2) return '';
  const point = (i, y) => `${toX(x[i]).toFixed(1)} ${toY(y[i]).toFixed(1)}`;
  return `M${shown.map((i) => point(i, high)).join('L')}L${shown.reverse().map((i) => point(i, low)).join('L')}Z`;
}
