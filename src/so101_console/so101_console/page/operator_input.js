// SPDX-License-Identifier: Apache-2.0
// Keys, buttons, joystick and gamepad: what the human wants the hand to do, many times a second while they drive.

const PERIOD_MS = 50;

// What keys and pads mean comes from the console: the same map as that of every other device. Until it has come, and
// whatever it says, the space bar stops the arm.
const NOTHING = { keys: {}, pad: null };

export class OperatorInput {
  constructor({ drives, drive, act, padOwner }) {
    Object.assign(this, { drives, drive, act, padOwner });
    this.controls = NOTHING;
    this.keys = new Set();
    this.held = new Map();
    this.stick = [0, 0];
    this.pads = new Map();
    addEventListener('keydown', (event) => this.#down(event), { capture: true });
    addEventListener('keyup', (event) => this.#up(event), { capture: true });
    // Keys that are let go elsewhere are never heard of.
    addEventListener('blur', () => this.let_go());
    document.addEventListener('visibilitychange', () => { if (document.hidden) this.let_go(); });
    for (const button of document.querySelectorAll('[data-axis], [data-gripper]')) this.#hold(button);
    this.#listen(document.getElementById('stick'), document.getElementById('knob'));
    setInterval(() => this.#tick(), PERIOD_MS);
  }

  use(controls) {
    this.let_go();
    this.controls = controls;
  }

  let_go() {
    this.keys.clear();
    this.held.clear();
    this.stick = [0, 0];
  }

  #down(event) {
    if (writes(event.target)) {
      if (event.key === 'Escape') event.target.blur();
      return;
    }
    if (event.code === 'Space') {
      // Wherever the focus is, and with any other key held: the stop must not press a button instead.
      event.preventDefault();
      if (!event.repeat) this.act('e_stop');
      return;
    }
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const meaning = this.controls.keys[event.key.toLowerCase()];
    if (!meaning) return;
    if (!meaning.act) this.keys.add(event.key.toLowerCase());
    else if (!event.repeat) this.act(meaning.act);
  }

  #up(event) {
    if (event.code === 'Space' && !writes(event.target)) event.preventDefault();
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
    const wishes = [...[...this.keys].map((key) => this.controls.keys[key]), ...this.held.values()];
    for (const wish of wishes) {
      if (wish.gripper !== undefined) gripper += wish.gripper;
      else axes[wish.axis] += wish.sign;
    }
    for (const pad of this.#usablePads()) gripper += this.#pad(pad, axes);
    if (this.drives()) this.drive(axes.map(share), share(gripper));
  }

  // None where another program reads it, or nobody looks at this page: what is held then was not pressed for us.
  #usablePads() {
    const free = this.controls.pad && !this.padOwner() && !document.hidden && document.hasFocus();
    const found = free && navigator.getGamepads ? [...navigator.getGamepads()] : [];
    const usable = found.filter((pad) => pad && pad.mapping === 'standard');
    const known = new Set(usable.map((pad) => pad.index));
    for (const index of this.pads.keys()) if (!known.has(index)) this.pads.delete(index);
    return usable;
  }

  #pad(pad, axes) {
    const { buttons, deadman, deadzone, trigger_start: start, frozen_ms: frozen, axes: sticks, open, close } = this.controls.pad;
    const down = new Set(pad.buttons.flatMap((button, number) => (button.pressed ? [number] : [])));
    const before = this.pads.get(pad.index);
    // What is down when the pad is seen first asks for nothing, and a deadman must be let go before it counts.
    const trusted = before ? before.trusted || !down.has(deadman) : !down.has(deadman);
    this.pads.set(pad.index, { down, trusted });
    for (const number of before ? down : []) {
      if (!before.down.has(number) && buttons[number]) this.act(buttons[number]);
    }
    if (!trusted || !down.has(deadman) || performance.now() - pad.timestamp > frozen) return 0;
    const lean = (value) => Math.sign(value) * Math.max(Math.abs(value) - deadzone, 0) / (1 - deadzone);
    const pulled = (number) => { const { value } = pad.buttons[number] || { value: 0 }; return value < start ? 0 : value; };
    sticks.forEach((number, axis) => { axes[axis] -= lean(pad.axes[number] || 0); });
    return pulled(open) - pulled(close);
  }
}

// In a field for words a key is a letter, and the space bar a space.
function writes(element) {
  return element?.tagName === 'INPUT' && element.type === 'text';
}

function share(value) {
  return Math.round(Math.min(1, Math.max(-1, value)) * 1000) / 1000;
}
