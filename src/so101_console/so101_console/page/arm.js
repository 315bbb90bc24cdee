// SPDX-License-Identifier: Apache-2.0
// Draws the arm with WebGL 2: the bodies where the server says they are, the target, the workspace's box, the way that
// the hand has come, what the cameras see, what lies on the table where a simulation knows it, and where the next
// episode begins. It draws when something has changed, and never while nobody looks.

const VERTEX = `#version 300 es
in vec3 position; uniform mat4 view, body; out vec3 seen;
void main() { vec4 p = body * vec4(position, 1.0); seen = p.xyz; gl_Position = view * p; }`;
// The normal of a triangle follows from how its points change on the screen: the meshes need none.
const FRAGMENT = `#version 300 es
precision highp float; in vec3 seen; uniform vec3 colour; uniform float flat_, planned; out vec4 result;
void main() {
  // What is only planned has holes: half of it can be seen through, whatever is drawn first.
  if (planned > 0.0 && (int(gl_FragCoord.x) + int(gl_FragCoord.y)) % 2 == 0) discard;
  vec3 normal = normalize(cross(dFdx(seen), dFdy(seen)));
  float light = 0.45 + 0.55 * abs(dot(normal, normalize(vec3(0.4, -0.3, 0.85))));
  result = vec4(colour * mix(light, 1.0, flat_), 1.0);
}`;
const IDENTITY = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
const GRID_M = 0.1;
const PLAIN_MS = 250;
const TABLE = [-0.5, -0.5, 0, 0.5, -0.5, 0, 0.5, 0.5, 0, -0.5, -0.5, 0, 0.5, 0.5, 0, -0.5, 0.5, 0];
const TABLE_BELOW_M = 0.002; // else it flickers with the grid
const TRAIL_M = 0.003;
const TRAIL_POINTS = 240;
const MARK_M = 0.04;
const COLOURS = {
  light: { page: [0.87, 0.91, 0.89, 1], table: [0.94, 0.95, 0.94], grid: [0.78, 0.83, 0.8], box: [0.04, 0.43, 0.31], seen: [0.2, 0.35, 0.75], trail: [0.55, 0.28, 0.0], planned: [0.3, 0.55, 0.8], mark: [0.13, 0.45, 0.2] },
  dark: { page: [0.08, 0.11, 0.1, 1], table: [0.11, 0.15, 0.135], grid: [0.22, 0.28, 0.25], box: [0.35, 0.7, 0.58], seen: [0.5, 0.65, 1.0], trail: [1.0, 0.7, 0.33], planned: [0.45, 0.65, 0.9], mark: [0.4, 0.75, 0.45] },
};
const TARGET = [0.85, 0.3, 0.1];
const OBJECT = [0.75, 0.13, 0.1];

export class ArmView {
  constructor(canvas) {
    this.canvas = canvas;
    // Without a graphics card, every point costs the processor time that the control loop next to it needs.
    this.plain = drawsWithoutCard();
    this.gl = canvas.getContext('webgl2', { antialias: !this.plain });
    this.drawnAt = -PLAIN_MS;
    this.poses = [];
    this.seen = [];
    this.trail = [];
    this.target = this.box = this.objects = this.planned = null;
    this.eye = { yaw: -0.9, pitch: 0.45, distance: 0.68 };
    if (!this.gl) return;
    this.#prepare();
    this.#listen();
    this.#load();
  }

  show({ poses, target, box, tcp, seen, objects, planned }) {
    const next = JSON.stringify([poses, target, box, seen, objects, planned]);
    if (next === this.shown) return;
    this.shown = next;
    Object.assign(this, { poses: poses || [], target, box, seen: seen || [], objects, planned });
    const last = this.trail.slice(-3);
    if (tcp && !(Math.hypot(...tcp.map((metre, k) => metre - last[k])) < TRAIL_M)) {
      this.trail = [...this.trail, ...tcp].slice(-3 * TRAIL_POINTS);
    }
    this.redraw();
  }

  redraw() {
    if (this.waiting || !this.gl || document.hidden) return;
    this.waiting = true;
    const draw = () => requestAnimationFrame((now) => { this.waiting = false; this.drawnAt = now; this.#draw(); });
    const wait = this.plain ? this.drawnAt + PLAIN_MS - performance.now() : 0;
    if (wait > 0) setTimeout(draw, wait); else draw();
  }

  #prepare() {
    const gl = this.gl;
    const program = this.program = gl.createProgram();
    for (const [type, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(type);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.bindAttribLocation(program, 0, 'position');
    gl.linkProgram(program);
    gl.useProgram(program);
    this.uniform = {};
    for (const name of ['view', 'body', 'colour', 'flat_', 'planned']) this.uniform[name] = gl.getUniformLocation(program, name);
    gl.enable(gl.DEPTH_TEST);
    this.lines = gl.createBuffer();
    this.parts = [];
  }

  #listen() {
    this.canvas.addEventListener('pointermove', (event) => {
      if (event.buttons) this.#turn(event.movementX * 0.01, event.movementY * 0.01);
    });
    this.canvas.addEventListener('keydown', (event) => {
      const turn = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
      if (turn) { event.preventDefault(); this.#turn(...turn); }
    });
    new ResizeObserver(() => this.redraw()).observe(this.canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.redraw());
    document.addEventListener('visibilitychange', () => this.redraw());
  }

  #turn(yaw, pitch) {
    this.eye.yaw -= yaw;
    this.eye.pitch = Math.min(1.5, Math.max(-0.1, this.eye.pitch + pitch));
    this.redraw();
  }

  async #load() {
    const gl = this.gl;
    const answer = await fetch('/arm');
    if (!answer.ok) return;
    const data = await answer.arrayBuffer();
    const length = new DataView(data).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    const start = 4 + length;
    for (const part of header.parts) {
      const array = gl.createVertexArray();
      gl.bindVertexArray(array);
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(data, start + part.vertices[0], part.vertices[1] * 3), gl.STATIC_DRAW);
      gl.enableVertexAttribArray(0);
      gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, new Uint32Array(data, start + part.faces[0], part.faces[1] * 3), gl.STATIC_DRAW);
      this.parts.push({ array, body: part.body, colour: part.colour, count: part.faces[1] * 3 });
    }
    gl.bindVertexArray(null);
    this.redraw();
  }

  #draw() {
    const { gl, canvas, uniform } = this;
    const dark = matchMedia('(prefers-color-scheme: dark)').matches;
    const scale = 2; // thin lines need the points even where the screen has fewer
    const [width, height] = [canvas.clientWidth * scale, canvas.clientHeight * scale];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    gl.viewport(0, 0, canvas.width, canvas.height);
    const colours = COLOURS[dark ? 'dark' : 'light'];
    gl.clearColor(...colours.page);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix4fv(uniform.view, false, this.#view(canvas.width / canvas.height));
    gl.uniform1f(uniform.planned, 0);
    const below = [...IDENTITY.slice(0, 14), -TABLE_BELOW_M, 1];
    this.#drawPoints(gl.TRIANGLES, TABLE, colours.table, below, 1);
    this.#drawPoints(gl.LINES, grid(), colours.grid);
    if (this.box) this.#drawPoints(gl.LINES, edges(this.box), colours.box);
    if (this.target) this.#drawPoints(gl.LINES, cross(this.target), TARGET);
    if (this.trail.length > 3) this.#drawPoints(gl.LINE_STRIP, this.trail, colours.trail);
    for (const pyramid of this.seen) this.#drawPoints(gl.LINES, rays(pyramid), colours.seen);
    this.#drawObjects(colours);
    this.#drawArm(this.poses, dark);
    if (this.planned) {
      gl.uniform1f(uniform.planned, 1);
      if (this.planned.box) this.#drawPoints(gl.LINES, edges(this.planned.box), colours.planned);
      this.#drawArm(this.planned.poses, dark, colours.planned);
    }
    gl.bindVertexArray(null);
    const shown = { target: this.target, workspace: this.box, trail: this.trail.length > 3, cameras: this.seen.length, objects: this.objects, planned: this.planned };
    canvas.dataset.shows = ['arm', 'table', ...Object.keys(shown).filter((name) => shown[name])].join(' ');
  }

  #drawArm(poses, dark, colour) {
    const { gl, uniform } = this;
    gl.uniform1f(uniform.flat_, 0);
    for (const part of this.parts) {
      const pose = poses.slice(part.body * 7, part.body * 7 + 7);
      if (pose.length < 7) continue;
      gl.uniformMatrix4fv(uniform.body, false, matrix(pose));
      gl.uniform3fv(uniform.colour, colour ?? (dark ? part.colour.map((c) => Math.max(c, 0.25)) : part.colour));
      gl.bindVertexArray(part.array);
      gl.drawElements(gl.TRIANGLES, part.count, gl.UNSIGNED_INT, 0);
    }
  }

  #drawObjects(colours) {
    if (!this.objects) return;
    const { gl } = this;
    const { cube, half, mark } = this.objects;
    this.#drawPoints(gl.TRIANGLES, faces(half), OBJECT, matrix(cube), 0);
    if (!mark) return;
    const [x, y, z] = mark;
    const square = { low: [x - MARK_M, y - MARK_M, z], high: [x + MARK_M, y + MARK_M, z + TABLE_BELOW_M] };
    this.#drawPoints(gl.LINES, edges(square), colours.mark);
  }

  #drawPoints(kind, points, colour, body = IDENTITY, flat = 1) {
    const { gl, uniform } = this;
    gl.bindVertexArray(null);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.lines);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(points), gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0);
    gl.uniformMatrix4fv(uniform.body, false, body);
    gl.uniform3fv(uniform.colour, colour);
    gl.uniform1f(uniform.flat_, flat);
    gl.drawArrays(kind, 0, points.length / 3);
  }

  // A perspective view from `eye` around a point in front of the base, z up; column-major.
  #view(aspect) {
    const { yaw, pitch, distance } = this.eye;
    const centre = [0.15, 0, 0.09];
    const back = [Math.cos(pitch) * Math.cos(yaw), Math.cos(pitch) * Math.sin(yaw), Math.sin(pitch)];
    const right = [-Math.sin(yaw), Math.cos(yaw), 0];
    const up = [back[1] * right[2] - back[2] * right[1], back[2] * right[0] - back[0] * right[2], back[0] * right[1] - back[1] * right[0]];
    const eye = centre.map((c, i) => c + back[i] * distance);
    const f = 2.2, near = 0.05, far = 5;
    const rows = [right, up, back].map((axis) => [...axis, -(axis[0] * eye[0] + axis[1] * eye[1] + axis[2] * eye[2])]);
    const clip = [
      rows[0].map((v) => (v * f) / aspect),
      rows[1].map((v) => v * f),
      rows[2].map((v) => (v * (far + near)) / (near - far)),
      rows[2].map((v) => -v),
    ];
    clip[2][3] += (2 * far * near) / (near - far);
    return [0, 1, 2, 3].flatMap((column) => clip.map((row) => row[column]));
  }
}

function drawsWithoutCard() {
  const gl = document.createElement('canvas').getContext('webgl2');
  if (!gl) return true;
  const more = gl.getExtension('WEBGL_debug_renderer_info');
  return /swiftshader|llvmpipe|software/i.test(gl.getParameter(more ? more.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
}

function matrix([x, y, z, w, i, j, k]) {
  return [
    1 - 2 * (j * j + k * k), 2 * (i * j + w * k), 2 * (i * k - w * j), 0,
    2 * (i * j - w * k), 1 - 2 * (i * i + k * k), 2 * (j * k + w * i), 0,
    2 * (i * k + w * j), 2 * (j * k - w * i), 1 - 2 * (i * i + j * j), 0,
    x, y, z, 1,
  ];
}

function grid() {
  const points = [];
  for (let n = -5; n <= 5; n++) points.push(-0.5, n * GRID_M, 0, 0.5, n * GRID_M, 0, n * GRID_M, -0.5, 0, n * GRID_M, 0.5, 0);
  return points;
}

function edges({ low, high }) {
  const corner = (n) => [0, 1, 2].map((axis) => ((n >> axis) & 1 ? high[axis] : low[axis]));
  const points = [];
  for (let n = 0; n < 8; n++) for (const bit of [1, 2, 4]) if (!(n & bit)) points.push(...corner(n), ...corner(n | bit));
  return points;
}

function cross([x, y, z]) {
  const r = 0.02;
  return [x - r, y, z, x + r, y, z, x, y - r, z, x, y + r, z, x, y, z - r, x, y, z + r];
}

// From the eye to the corners of a picture, and around it.
function rays([eye, ...corners]) {
  return corners.flatMap((corner, n) => [...eye, ...corner, ...corner, ...corners[(n + 1) % 4]]);
}

// The six faces of a cube around its middle.
function faces(half) {
  const points = [];
  for (let axis = 0; axis < 3; axis++) {
    for (const side of [-half, half]) {
      for (const [u, v] of [[-1, -1], [1, -1], [1, 1], [-1, -1], [1, 1], [-1, 1]]) {
        const point = [];
        point[axis] = side;
        point[(axis + 1) % 3] = u * half;
        point[(axis + 2) % 3] = v * half;
        points.push(...point);
      }
    }
  }
  return points;
}
