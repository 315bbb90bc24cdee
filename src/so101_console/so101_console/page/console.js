// SPDX-License-Identifier: Apache-2.0
// The page: one WebSocket brings how things are, and takes what the human wants.

import { ArmView } from './arm.js';
import { Cameras } from './cameras.js';
import { Charts } from './charts.js';
import { EpisodeBrowser } from './episodes.js';
import { OperatorInput } from './operator_input.js';
import { Runs } from './runs.js';
import { Tones } from './tones.js';

const $ = (id) => document.getElementById(id);
const RETRY_MS = 1000;
const NOTE_MS = 6000;
const STALE_MS = 1500;
const SILENT_MS = 4000;
const CONFIRM_MS = 1500;
const FORGET_MS = 60000;

const MARKS = { ok: 'well', warn: 'look', fail: 'mend', skip: 'off' };

const arm = new ArmView($('arm'));
const charts = new Charts($('charts'));
const episodes = new EpisodeBrowser({ act: (message) => (connected() ? send(message) : say('Not sent: there is no connection.')), say });
new Runs({ say });
const tones = new Tones($('tones'));
const cameras = new Cameras($('drawings'));
let socket = null;
let now = {};
let heardAt = 0;
let leave = () => {};

function connect() {
  const opened = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/live`);
  let over = false;
  // Also of a socket that stays open and says nothing, or never opens: closing it may take for ever.
  leave = () => {
    if (over) return;
    over = true;
    opened.onmessage = opened.onopen = null;
    opened.close();
    socket = null;
    now = {};
    input.let_go();
    alarm();
    setTimeout(connect, RETRY_MS);
  };
  aliveAt = performance.now();
  opened.binaryType = 'blob';
  opened.onopen = () => { socket = opened; now = {}; heardAt = aliveAt = performance.now(); charts.clear(); learnControls(); };
  opened.onmessage = ({ data }) => {
    if (data instanceof Blob) return cameras.take(data);
    const message = JSON.parse(data);
    if (message.type === 'note') return say(message.text);
    heardAt = aliveAt = performance.now();
    Object.assign(now, message); // only what has changed comes
    show(now, message);
    if ('arm' in message && message.arm === 'stopped') stopAsked = 0;
    alarm();
  };
  opened.onclose = leave;
}

// Nothing has come for long: whoever is at the other end hears a page that asks again.
let aliveAt = performance.now();
setInterval(() => { if (performance.now() - aliveAt > SILENT_MS) leave(); }, 250);

// A page that is closed or left behind says so at once; one that is shown again connects again.
addEventListener('pagehide', () => { if (socket) socket.close(); });

function connected() {
  return Boolean(socket) && performance.now() - heardAt < STALE_MS;
}

// What must not be overlooked: nothing on the page is true any more, or the stop did not get through.
let stopAsked = 0;
function alarm() {
  if (stopAsked && performance.now() - stopAsked > FORGET_MS) stopAsked = 0;
  const late = stopAsked && performance.now() - stopAsked > CONFIRM_MS && now.arm !== 'stopped';
  const lines = [];
  if (late) lines.push('The stop is not confirmed. Switch the power of the arm off!');
  if (!connected() && heardAt) {
    lines.push('No connection to the console.', 'Nothing here is live. A policy may still drive: keep a hand on the power switch.');
    showState('Not connected', 'Trying again every second.', 'stopped');
  }
  const text = lines.join('\n');
  if ($('alarm').textContent === text) return;
  $('alarm').textContent = text;
  $('alarm').hidden = !text;
  document.body.classList.toggle('lost', !connected());
}

function stop() {
  if (!stopAsked || now.arm === 'stopped') stopAsked = performance.now();
  send({ do: 'e_stop' });
  // By a second way too, for when the socket is gone and nobody has noticed yet.
  fetch('/stop', { method: 'POST', keepalive: true }).catch(() => {});
}

function send(message) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function act(what) {
  if (what === 'e_stop') return stop();
  if (!connected()) return say('Not sent: there is no connection.');
  send({ do: what });
}

const input = new OperatorInput({
  drives: () => Boolean(now.you_drive) && connected(),
  drive: (axes, gripper) => send({ do: 'drive', axes, gripper }),
  act,
  padOwner: () => now.pad_owner,
});

// Each part by itself: one that cannot be shown does not take the others with it.
const PARTS = {
  state: (state) => showState(state.title, state.detail, state.drives),
  buttons: showButtons,
  arm: (state) => arm.show(state),
  hand: (state) => text('tcp', state.tcp ? `Hand at ${state.tcp.map((m) => (m * 100).toFixed(1)).join(', ')} cm` : 'No pose yet'),
  episode: (state) => text('episode', state.episode || 'No episode'),
  human: (state) => text('human', state.human || '–'),
  recording: ({ recording }) => {
    text('recording', recording ? recording.said : '–');
    $('recording').classList.toggle('bad', Boolean(recording && recording.bad));
  },
  phone: (state) => { $('phone').hidden = !state.phone; },
  start: (state) => text('start-does', state.start ? `Start: ${state.start}.` : ''),
  gamepad: (state) => text('gamepad', state.pad_owner ? `The gamepad is read by ${state.pad_owner}; here it does nothing.`
    : 'A gamepad works too, while its right shoulder button is held.'),
  pictures: (state) => cameras.ages(state),
  drawn: (state) => cameras.drawn(state.drawn, state.scores),
  help: (state) => cameras.help(state.help),
  task: ({ task }) => text('task', task?.instruction ? `Task: ${task.instruction}${task.human ? ` Between episodes: ${task.human}` : ''}` : ''),
  classifier: (state, news) => { if ('classifier' in news) showClassifier(news.classifier); },
  model: (state, news) => { if ('model' in news) showModel(news.model); },
  servos: (state, news) => { if (news.servos) showServos(news.servos); },
  checks: (state, news) => { if (news.checks) showChecks(news.checks); },
  bus: (state) => text('bus', state.bus || 'The driver has said nothing yet'),
  learner: (state) => text('learner', state.learner || 'No learner is running'),
  progress: (state) => text('progress', state.progress || ''),
  coach: (state, news) => { if (news.coach) list('coach', news.coach); },
  curves: (state, news) => { if (news.curves) charts.add(news.curves); },
  episodes: (state, news) => { if (news.episodes) episodes.show(news.episodes); },
  note: (state, news) => { if (news.note) say(news.note); },
};

async function learnControls() {
  try {
    const controls = await (await fetch('/controls')).json();
    input.use(controls);
    list('controls', controls.lines.map(([part, meaning]) => `${part}: ${meaning}`));
  } catch {
    say('What keys and gamepad do has not come; the buttons of this page work.');
  }
}

function show(state, news) {
  for (const [name, part] of Object.entries(PARTS)) {
    try {
      part(state, news);
    } catch (error) {
      say(`This page cannot show “${name}”: ${error.message}`);
    }
  }
}

function showButtons(state) {
  $('take').disabled = Boolean(state.you_drive);
  $('give').disabled = !state.can_give;
  $('recover').hidden = !state.arm || state.arm === 'ready';
  $('take').setAttribute('aria-pressed', String(Boolean(state.you_drive)));
  document.querySelector('[data-do="pause"]').setAttribute('aria-pressed', String(Boolean(state.paused)));
}

// What a model is told stands in its field until somebody writes there.
function showModel(model) {
  $('model').hidden = !model;
  if (!model) return;
  if (document.activeElement !== $('instruction')) $('instruction').value = model.instruction;
  text('model-said', model.said);
  $('model-said').classList.toggle('bad', model.bad);
}

$('model').addEventListener('submit', (event) => {
  event.preventDefault();
  if (connected()) send({ do: 'instruct', text: $('instruction').value });
  else say('Not sent: there is no connection.');
  $('instruction').blur();
});

// The picture that the classifier asks about is asked for again when it may be another one.
let asked = '';
function showClassifier(classifier) {
  $('train').hidden = $('classifier').hidden = !classifier;
  $('doubt').hidden = !classifier?.doubts;
  if (!classifier) return;
  text('classifier', classifier.said);
  $('classifier').classList.toggle('bad', classifier.bad);
  const now = `/doubt?${classifier.labels}-${classifier.doubts}`;
  if (classifier.doubts && asked !== now) $('doubt-picture').src = asked = now;
}

function showState(title, detail, drives) {
  const element = $('state');
  if (element.dataset.shown === title + detail) return;
  element.dataset.shown = title + detail;
  document.querySelector('header').dataset.drives = drives;
  tones.hear(drives);
  const small = document.createElement('small');
  small.textContent = detail;
  element.replaceChildren(title, small);
}

function showServos(servos) {
  $('servos').replaceChildren(...servos.map((servo) => {
    const row = document.createElement('tr');
    const { temperature: heat } = servo;
    row.append(cell(servo.name.replace('_', ' '), '', 'th'), cell(number(servo.angle, 1, '°')),
      cell(number(heat, 0, ' °C'), heat >= 65 ? 'bad' : heat >= 55 ? 'warn' : ''),
      cell(number(servo.voltage, 1, ' V')), cell(number(servo.load === null ? null : servo.load * 100, 0, ' %')),
      cell(servo.state, servo.healthy ? '' : 'bad'));
    return row;
  }));
}

function number(value, digits, unit) {
  return value === null || value === undefined ? '–' : `${value.toFixed(digits)}${unit}`;
}

function showChecks(checks) {
  $('checks').replaceChildren(...checks.map((check) => {
    const line = document.createElement('li');
    const mark = Object.assign(document.createElement('b'), { textContent: MARKS[check.status] });
    const name = Object.assign(document.createElement('b'), { textContent: check.name[0].toUpperCase() + check.name.slice(1) });
    const remedy = Object.assign(document.createElement('em'), { textContent: check.remedy });
    mark.className = `mark ${check.status}`;
    line.append(mark, name, ` ${check.finding} `, remedy);
    return line;
  }));
}

function cell(content, kind = '', tag = 'td') {
  const element = document.createElement(tag);
  element.textContent = content;
  if (tag === 'th') element.scope = 'row';
  if (kind) element.className = kind;
  return element;
}

function text(id, content) {
  const element = $(id);
  if (element.textContent !== content) element.textContent = content;
}

function list(id, lines) {
  const element = $(id);
  const shown = lines.join('\n');
  if (element.dataset.shown === shown) return;
  element.dataset.shown = shown;
  element.replaceChildren(...lines.map((line) => Object.assign(document.createElement('li'), { textContent: line })));
}

let hiding = 0;
function say(line) {
  if (!line) return;
  const note = $('note');
  note.textContent = line;
  note.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { note.hidden = true; }, NOTE_MS);
}

// On the way down already: a stop does not wait for the finger to lift.
$('e-stop').addEventListener('pointerdown', stop);
$('e-stop').addEventListener('click', (event) => { if (event.detail === 0) stop(); });
$('take').addEventListener('click', () => act('take'));
$('give').addEventListener('click', () => act('give'));
for (const button of document.querySelectorAll('[data-do]')) {
  button.addEventListener('click', () => act(button.dataset.do));
}
$('phone').addEventListener('click', () => {
  $('phone-picture').src = '/phone.svg';
  $('phone-code').showModal();
});
setInterval(alarm, 250);
connect();
