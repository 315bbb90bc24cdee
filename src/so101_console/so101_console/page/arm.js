// SPDX-License-Identifier: Apache-2.0
// Draws the arm with WebGL 2: the bodies where the server says they are, the target, and the workspace's box.

const VERTEX = `#version 300 es
in vec3 position; uniform mat4 view, body; out vec3 seen;
void main() { vec4 p = body * vec4(position, 1.0); seen = p.xyz; gl_Position = view * p; }`;
// The normal of a triangle follows from how its points change on the screen: the meshes need none.
const FRAGMENT = `#version 300 es
precision highp float; in vec3 seen; uniform vec3 colour; uniform float flat_; out vec4 result;
void main() {
  vec3 normal = normalize(cross(dFdx(seen), dFdy(seen)));
  float light = 0.45 + 0.55 * abs(dot(normal, normalize(vec3(0.4, -0.3, 0.85))));
  result = vec4(colour * mix(light, 1.0, flat_), 1.0);
}`;
const IDENTITY = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
const GRID_M = 0.1;
const PLAIN_MS = 250;

export class ArmView {
  constructor(canvas) {
    this.canvas = canvas;
    // Without a graphics card, every point costs the processor time that the control loop next to it needs.
    this.plain = drawsWithoutCard();
    this.gl = canvas.getContext('webgl2', { antialias: !this.plain });
    this.drawnAt = -PLAIN_MS;
    this.poses = [];
    this.target = null;
    this.box = null;
    this.eye = { yaw: -0.9, pitch: 0.45, distance: 0.68 };
    if (!this.gl) return;
    this.#prepare();
    this.#listen();
    this.#load();
  }

  show(poses, target, box) {
    const next = JSON.stringify([poses, target, box]);
    if (next === this.shown) return;
    this.shown = next;
    Object.assign(this, { poses, target, box });
    this.redraw();
  }

  redraw() {
    if (this.waiting || !this.gl) return;
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
    for (const name of ['view', 'body', 'colour', 'flat_']) this.uniform[name] = gl.getUniformLocation(program, name);
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
    gl.clearColor(...(dark ? [0.08, 0.11, 0.1, 1] : [0.87, 0.91, 0.89, 1]));
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix4fv(uniform.view, false, this.#view(canvas.width / canvas.height));
    this.#drawLines(grid(), dark ? [0.25, 0.32, 0.29] : [0.72, 0.78, 0.75]);
    if (this.box) this.#drawLines(edges(this.box), dark ? [0.35, 0.7, 0.58] : [0.04, 0.43, 0.31]);
    if (this.target) this.#drawLines(cross(this.target), [0.85, 0.3, 0.1]);
    gl.uniform1f(uniform.flat_, 0);
    for (const part of this.parts) {
      const pose = this.poses.slice(part.body * 7, part.body * 7 + 7);
      if (pose.length < 7) continue;
      gl.uniformMatrix4fv(uniform.body, false, matrix(pose));
      gl.uniform3fv(uniform.colour, dark ? part.colour.map((c) => Math.max(c, 0.25)) : part.colour);
      gl.bindVertexArray(part.array);
      gl.drawElements(gl.TRIANGLES, part.count, gl.UNSIGNED_INT, 0);
    }
    gl.bindVertexArray(null);
  }

  #drawLines(points, colour) {
    const { gl, uniform } = this;
    gl.bindVertexArray(null);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.lines);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(points), gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0);
    gl.uniformMatrix4fv(uniform.body, false, IDENTITY);
    gl.uniform3fv(uniform.colour, colour);
    gl.uniform1f(uniform.flat_, 1);
    gl.drawArrays(gl.LINES, 0, points.length / 3);
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
