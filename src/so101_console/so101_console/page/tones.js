// SPDX-License-Identifier: Apache-2.0
// One tone each for: a human has taken over, the policy has it again, the arm is stopped. Never a voice.

const TONES = { you: [660, 880], policy: [880, 660], stopped: [330, 330, 330] }; // [Hz], one after another
const LENGTH_S = 0.12;
const VOLUME = 0.15;
const KEPT = 'so101-tones';

export class Tones {
  // The switch that turns them off; browsers let a page sound only after somebody has touched it.
  constructor(button) {
    this.button = button;
    this.context = null;
    this.last = null;
    this.show(localStorage.getItem(KEPT) !== 'off');
    button.addEventListener('click', () => this.show(!this.on));
    addEventListener('pointerdown', () => this.wake(), { once: true });
    addEventListener('keydown', () => this.wake(), { once: true });
  }

  show(on) {
    this.on = on;
    localStorage.setItem(KEPT, on ? 'on' : 'off');
    this.button.setAttribute('aria-pressed', String(on));
  }

  wake() {
    this.context ??= new AudioContext();
  }

  // Between episodes nobody drives: what counts is who drove last.
  hear(drives) {
    if (!TONES[drives] || drives === this.last) return;
    const first = this.last === null;
    this.last = drives;
    if (first || !this.on || !this.context) return;
    TONES[drives].forEach((frequency, k) => this.sound(frequency, k * LENGTH_S * 1.3));
  }

  sound(frequency, after) {
    const begin = this.context.currentTime + after;
    const volume = new GainNode(this.context, { gain: VOLUME });
    const tone = new OscillatorNode(this.context, { frequency });
    volume.gain.setTargetAtTime(0, begin + LENGTH_S * 0.6, LENGTH_S / 6); // without a click
    tone.connect(volume).connect(this.context.destination);
    tone.start(begin);
    tone.stop(begin + LENGTH_S * 1.5);
  }
}
