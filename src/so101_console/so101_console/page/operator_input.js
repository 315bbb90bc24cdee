// SPDX-License-Identifier: Apache-2.0
// Keys, buttons, joystick and gamepad: what the human wants the hand to do, many times a second while they drive.

const PERIOD_MS = 50;
const DEADZONE = 0.15;  // thresholds.STICK_DEAD_ZONE; a test compares
const MOVES = { w: [0, 1], s: [0, -1], a: [1, 1], d: [1, -1], r: [2, 1], f: [2, -1] };
const GRIPS = { e: 1, q: -1 };
const ACTS = { t: 'take', g: 'give', 1: 'success', 2: 'failure', 3: 'discard', n: 'start', h: 'reset', p: 'pause' };
const PAD_BUTTONS = { 0: 'success', 1: 'failure', 2: 'discard', 3: 'take_or_give', 8: 'e_stop', 9: 'start' };

export class OperatorInput {
  constructor({ drives, drive, act }) {
    Object.assign(this, { drives, drive, act });
    this.keys = new Set();
    this.held = new Map();
    this.stick = [0, 0];
    this.pressed = new Set();
    addEventListener('keydown', (event) => this.#down(event), { capture: true });
    addEventListener('keyup', (event) => this.#up(event), { capture: true });
    // Keys that are let go elsewhere are never heard of.
    addEventListener('blur', () => this.let_go());
    document.addEventListener('visibilitychange', () => { if (document.hidden) this.let_go(); });
    for (const button of document.querySelectorAll('[data-axis], [data-gripper]')) this.#hold(button);
    this.#listen(document.getElementById('stick'), document.getElementById('knob'));
    setInterval(() => this.#tick(), PERIOD_MS);
  }

  let_go() {
    this.keys.clear();
    this.held.clear();
    this.stick = [0, 0];
  }

  #down(event) {
    if (event.code === 'Space') {
      // Wherever the focus is, and with any other key held: the stop must not press a button instead.
      event.preventDefault();
      if (!event.repeat) this.act('e_stop');
      return;
    }
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const key = event.key.toLowerCase();
    if (key in MOVES || key in GRIPS) this.keys.add(key);
    else if (key in ACTS && !event.repeat) this.act(ACTS[key]);
  }

  #up(event) {
    if (event.code === 'Space') event.preventDefault();
    this.keys.delete(event.key.toLowerCase());
  }

  #hold(button) {
    const { axis, sign, gripper } = button.dataset;
    const wish = axis === undefined ? { gripper: Number(gripper) } : { axis: Number(axis), sign: Number(sign) };
    const start = (event) => { event.preventDefault(); this.held.set(button, wish); };
    const end = () => this.held.delete(button);
    button.addEventListener('pointerdown', start);
    for (const name of ['pointerup', 'pointerleave', 'pointercancel', 'blur']) button.addEventListener(name, end);
    button.addEventListener('keydown', (event) => { if (event.key === 'Enter') start(event); });
    button.addEventListener('keyup', (event) => { if (event.key === 'Enter') end(); });
  }

  #listen(area, knob) {
    const move = (event) => {
      const box = area.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * 2 - 1;
      const y = ((event.clientY - box.top) / box.height) * 2 - 1;
      const size = Math.max(1, Math.hypot(x, y));
      this.stick = [-y / size, -x / size];
      knob.style.transform = `translate(${(x / size) * 30}px, ${(y / size) * 30}px)`;
    };
    const end = () => { this.stick = [0, 0]; knob.style.transform = ''; };
    area.addEventListener('pointerdown', (event) => { area.setPointerCapture(event.pointerId); move(event); });
    area.addEventListener('pointermove', (event) => { if (event.buttons) move(event); });
    for (const name of ['pointerup', 'pointercancel', 'lostpointercapture']) area.addEventListener(name, end);
  }

  #tick() {
    const axes = [this.stick[0], this.stick[1], 0];
    let gripper = 0;
    for (const key of this.keys) {
      if (key in MOVES) axes[MOVES[key][0]] += MOVES[key][1];
      else gripper += GRIPS[key];
    }
    for (const wish of this.held.values()) {
      if (wish.gripper !== undefined) gripper += wish.gripper;
      else axes[wish.axis] += wish.sign;
    }
    for (const pad of navigator.getGamepads ? navigator.getGamepads() : []) {
      if (pad && pad.mapping === 'standard') gripper += this.#pad(pad, axes);
    }
    if (this.drives()) this.drive(axes.map(share), share(gripper));
  }

  #pad(pad, axes) {
    const lean = (value) => (Math.abs(value) < DEADZONE ? 0 : value);
    const value = (number) => (pad.buttons[number] ? pad.buttons[number].value : 0);
    axes[0] -= lean(pad.axes[1] || 0);
    axes[1] -= lean(pad.axes[0] || 0);
    axes[2] += value(7) - value(6);
    for (const [number, what] of Object.entries(PAD_BUTTONS)) {
      const id = `${pad.index}:${number}`;
      const is_down = Boolean(pad.buttons[number] && pad.buttons[number].pressed);
      if (is_down && !this.pressed.has(id)) this.act(what === 'take_or_give' ? (this.drives() ? 'give' : 'take') : what);
      if (is_down) this.pressed.add(id); else this.pressed.delete(id);
    }
    return value(5) - value(4);
  }
}

function share(value) {
  return Math.round(Math.min(1, Math.max(-1, value)) * 1000) / 1000;
}
