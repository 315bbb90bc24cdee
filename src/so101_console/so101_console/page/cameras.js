// SPDX-License-Identifier: Apache-2.0
// The pictures: the newest of each camera, what is drawn on a sheet above it, and the scene that is to be put back.

const $ = (id) => document.getElementById(id);
const KEPT = 'so101-drawings';
const STALE_S = 0.5;
const SHEET_PX = 640; // width of a sheet: it is stretched over its picture
const COLOURS = { policy: '#35d8a0', hand: '#ffb454', target: '#ff6b7a' };
const WORDS = { policy: 'policy', hand: 'by hand', target: 'target' };
const DARK = 'rgba(10, 16, 14, .85)';

export class Cameras {
  // The switch that turns the drawings off.
  constructor(button) {
    this.button = button;
    this.views = [this.#adopt(document.querySelector('.frame'), $('camera'), $('no-camera'), $('camera-said'))];
    this.scenes = '';
    this.#switch(localStorage.getItem(KEPT) !== 'off');
    button.addEventListener('click', () => this.#switch(!this.on));
    document.addEventListener('visibilitychange', () => { if (!document.hidden) this.views.forEach((view) => this.#draw(view)); });
  }

  ages({ camera, cameras }) {
    [camera, ...(cameras || [])].forEach((one, k) => {
      if (!one) return;
      const { age, fps } = one;
      const { frame, said, none } = this.views[k] ??= this.#build(one.name);
      const stale = age === null || age > STALE_S;
      frame.classList.toggle('stale', stale);
      none.hidden = !stale;
      write(none, age === null ? 'No picture yet' : 'The camera has stopped');
      write(said, age === null ? 'No picture yet' : `${Math.round(age * 1000)} ms old, ${fps.toFixed(0)} pictures/s`);
    });
  }

  // A picture as it came; those of all but the first camera have its number in front.
  async take(blob) {
    const [first] = this.views.length > 1 ? new Uint8Array(await blob.slice(0, 1).arrayBuffer()) : [255];
    const view = this.views[first < 255 ? first : 0]; // a JPEG begins with 255
    if (!view) return;
    const before = view.image.src;
    view.image.src = URL.createObjectURL(first < 255 ? blob.slice(1) : blob);
    if (before.startsWith('blob:')) URL.revokeObjectURL(before);
  }

  // What is drawn over each picture, and what is thought of what they show.
  drawn(list, scores) {
    (list || []).forEach((drawing, k) => {
      const view = this.views[k];
      if (!view) return;
      view.lines = drawing.lines ?? [];
      write(view.why, drawing.why);
      this.#draw(view);
    });
    this.#score(scores || []);
  }

  // How it was when the last episode began, while somebody is asked to make it so again.
  help(told) {
    const help = Array.isArray(told?.pictures) ? told : null;
    $('help').hidden = !help;
    const shown = help ? `${help.episode} ${help.pictures}` : '';
    if (help) write($('help-said'), `${help.said.slice(0, 1).toUpperCase()}${help.said.slice(1)}.`);
    if (shown === this.scenes) return;
    this.scenes = shown;
    this.views.forEach(({ before }, k) => {
      before.hidden = !help?.pictures[k];
      if (help?.pictures[k]) before.src = `/start_scene?camera=${k}&episode=${help.episode}`;
    });
  }

  #switch(on) {
    this.on = on;
    localStorage.setItem(KEPT, on ? 'on' : 'off');
    this.button.setAttribute('aria-pressed', String(on));
    $('scores').hidden = !on;
    this.views.forEach((view) => this.#draw(view));
  }

  // The sheet changes when what is on it does, and while nobody looks it stays as it is.
  #draw(view) {
    const { sheet, image } = view;
    const lines = this.on ? view.lines : [];
    const ratio = image.naturalWidth ? image.naturalHeight / image.naturalWidth : 3 / 4;
    const shown = JSON.stringify([lines, ratio]);
    if (shown === view.shown || document.hidden) return;
    view.shown = shown;
    Object.assign(sheet, { width: SHEET_PX, height: Math.round(SHEET_PX * ratio) }); // empties it too
    sheet.dataset.shows = lines.map((line) => line.what).join(' ');
    const context = sheet.getContext('2d');
    Object.assign(context, { lineCap: 'round', lineJoin: 'round', font: '600 20px system-ui, sans-serif' });
    for (const { what, points } of lines) {
      const [from, to] = points.map(([x, y]) => [x * sheet.width, y * sheet.height]);
      const path = to ? arrow(from, to) : cross(from);
      const [x, y] = labelled(from, to ?? from, sheet);
      for (const [width, colour] of [[9, DARK], [4, COLOURS[what]]]) {
        Object.assign(context, { lineWidth: width, strokeStyle: colour });
        context.stroke(path);
      }
      Object.assign(context, { lineWidth: 5, strokeStyle: DARK, fillStyle: COLOURS[what] });
      context.strokeText(WORDS[what], x + 14, y + (to ? 7 : 26));
      context.fillText(WORDS[what], x + 14, y + (to ? 7 : 26));
    }
  }

  #score(scores) {
    const shown = JSON.stringify(scores);
    if (shown === this.scored) return;
    this.scored = shown;
    $('scores').replaceChildren(...scores.map(({ who, share, said }) => {
      const line = make('li', {});
      line.append(`${who}: ${said}`);
      if (share !== null) {
        const bar = make('meter', { min: 0, max: 1, value: share });
        bar.setAttribute('aria-label', `${who}: share of success`);
        line.append(bar);
      }
      return line;
    }));
  }

  #adopt(frame, image, none, said) {
    const sheet = make('canvas', { className: 'sheet', width: SHEET_PX, height: SHEET_PX * 3 / 4 });
    const before = make('img', { className: 'before', alt: 'How it looked when the last episode began', hidden: true });
    const why = make('span', { className: 'why' });
    sheet.setAttribute('aria-hidden', 'true');
    image.after(before, sheet);
    said.after(why);
    return { frame, image, none, said, sheet, before, why, lines: [], shown: '' };
  }

  // Each further camera has a view of its own, made when the page hears of it first.
  #build(name) {
    const section = make('section', { className: 'view' });
    const frame = make('div', { className: 'frame' });
    const image = make('img', { alt: `What the camera ${name} sees` });
    const none = make('p', { textContent: 'No picture yet' });
    const under = make('p', { className: 'under' });
    const said = make('span', {});
    section.setAttribute('aria-label', `Camera ${name}`);
    frame.append(image, none);
    under.append(said);
    section.append(make('h2', { textContent: `Camera ${name}` }), frame, under);
    const above = document.querySelectorAll('main > .asked, main > .asked ~ .view');
    above[above.length - 1].after(section);
    return this.#adopt(frame, image, none, said);
  }
}

function make(tag, values) {
  return Object.assign(document.createElement(tag), values);
}

function write(element, content) {
  if (element.textContent !== content) element.textContent = content;
}

function arrow([x, y], [tx, ty]) {
  const path = new Path2D();
  const angle = Math.atan2(ty - y, tx - x);
  const head = Math.min(22, Math.hypot(tx - x, ty - y) * 0.6);
  path.moveTo(x, y);
  path.lineTo(tx, ty);
  for (const turn of [2.6, -2.6]) {
    path.moveTo(tx, ty);
    path.lineTo(tx + head * Math.cos(angle + turn), ty + head * Math.sin(angle + turn));
  }
  return path;
}

// Where a line still is in the picture, with room for a word beside it.
function labelled([x, y], [tx, ty], { width, height }) {
  for (let share = 1; share > 0; share -= 0.05) {
    const [u, v] = [x + share * (tx - x), y + share * (ty - y)];
    if (u > 0 && u < width - 90 && v > 20 && v < height - 30) return [u, v];
  }
  return [Math.min(Math.max(x, 0), width - 90), Math.min(Math.max(y, 20), height - 30)];
}

function cross([x, y]) {
  const path = new Path2D();
  const r = 12;
  for (const [dx, dy] of [[r, 0], [0, r]]) { path.moveTo(x - dx, y - dy); path.lineTo(x + dx, y + dy); }
  return path;
}
