// The map of the fleet: a cell for each node, drawn pixel by pixel, so that tens of thousands cost a few ms.
//
// It knows where cells are and what state each is in; it asks nobody. Colours are [red, green, blue].
"use strict";

const RACK = 0xff33281f; // what of a rack no node covers: switches, storage

class FleetMap {
  constructor(canvas, overlay, told) {
    this.canvas = canvas;
    this.overlay = overlay;
    this.told = told; // {hover(index, x, y), click(index)}; index -1 is no node
    this.layout = { x: [], y: [], names: [], racks: [], width: 1, height: 1 };
    this.states = new Uint8Array(0);
    this.colours = [];
    this.zoom = 1;
    this.left = 0; // cells
    this.top = 0;
    this.hovered = -1;
    this.chosen = -1;
    this.frames = []; // [ms] that the last drawings took
    this.dirty = false;
    this.drag = null;
    this.listen();
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
    this.resize();
  }

  show(layout) {
    const grew = layout.names.length !== this.layout.names.length;
    this.layout = layout;
    if (grew) {
      const states = new Uint8Array(layout.names.length);
      states.set(this.states.subarray(0, Math.min(this.states.length, states.length)));
      this.states = states;
    }
    this.grid = null;
    this.draw();
  }

  resize() {
    const box = this.canvas.parentElement.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    for (const each of [this.canvas, this.overlay]) {
      each.width = Math.max(1, Math.round(box.width * ratio));
      each.height = Math.max(1, Math.round(box.height * ratio));
    }
    this.image = null;
    this.draw();
  }

  get scale() { // device pixels of a cell
    const { width, height } = this.layout;
    return this.zoom * Math.min(this.canvas.width / (width + 1), this.canvas.height / (height + 1));
  }

  draw() { // at the next frame, once
    if (this.dirty) return;
    this.dirty = true;
    requestAnimationFrame(() => {
      this.dirty = false;
      const begun = performance.now();
      this.paint();
      this.frames.push(performance.now() - begun);
      if (this.frames.length > 600) this.frames.shift();
    });
  }

  origin() { // device pixels of the map's corner
    const scale = this.scale;
    const across = (this.canvas.width - this.layout.width * scale) / 2;
    const down = (this.canvas.height - this.layout.height * scale) / 2;
    return [(this.zoom > 1 ? 0 : across) - this.left * scale, (this.zoom > 1 ? 0 : down) - this.top * scale];
  }

  paint() {
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    if (!this.image) {
      this.image = context.createImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    const pixels = this.pixels;
    pixels.fill(0);
    const scale = this.scale, [ox, oy] = this.origin();
    const words = this.colours.map(([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r);
    const gap = scale >= 4 ? Math.max(1, Math.round(scale * 0.12)) : 0;
    const box = (left, top, wide, high, gap, word) => {
      let x0 = Math.round(ox + left * scale), x1 = Math.round(ox + (left + wide) * scale) - gap;
      let y0 = Math.round(oy + top * scale), y1 = Math.round(oy + (top + high) * scale) - gap;
      if (x1 <= x0) x1 = x0 + 1;
      if (y1 <= y0) y1 = y0 + 1;
      if (x1 <= 0 || y1 <= 0 || x0 >= width || y0 >= height) return;
      if (x0 < 0) x0 = 0;
      if (y0 < 0) y0 = 0;
      if (x1 > width) x1 = width;
      if (y1 > height) y1 = height;
      for (let row = y0 * width; row < y1 * width; row += width) {
        for (let at = row + x0; at < row + x1; at++) pixels[at] = word;
      }
    };
    for (const [, left, top, wide, high] of this.layout.racks) box(left, top, wide, high, 0, RACK);
    const { x, y } = this.layout, states = this.states;
    for (let index = 0; index < x.length; index++) box(x[index], y[index], 1, 1, gap, words[states[index]]);
    context.putImageData(this.image, 0, 0);
    this.paintOver();
  }

  paintOver() { // names of racks where there is room, the node under the mouse, the chosen one
    const context = this.overlay.getContext("2d");
    context.clearRect(0, 0, this.overlay.width, this.overlay.height);
    const scale = this.scale, [ox, oy] = this.origin();
    if (scale >= 26) {
      context.font = `${Math.min(12, scale * 0.3)}px system-ui`;
      context.fillStyle = "#8a93a5";
      for (const [name, left, top] of this.layout.racks) {
        const x = ox + left * scale, y = oy + top * scale;
        if (x > -100 && x < this.overlay.width && y > 0 && y < this.overlay.height) {
          context.fillText(name.replace(/^rack-/, ""), x, y - 2);
        }
      }
    }
    for (const [index, colour] of [[this.chosen, "#ffffff"], [this.hovered, "#ffd166"]]) {
      if (index < 0 || index >= this.layout.x.length) continue;
      const size = Math.max(scale, 6);
      const x = ox + (this.layout.x[index] + 0.5) * scale, y = oy + (this.layout.y[index] + 0.5) * scale;
      context.strokeStyle = colour;
      context.lineWidth = 2;
      context.strokeRect(x - size / 2 - 1, y - size / 2 - 1, size + 1, size + 1);
    }
  }

  at(event) { // the node under the mouse, or -1
    const box = this.canvas.getBoundingClientRect(), ratio = this.canvas.width / box.width;
    const scale = this.scale, [ox, oy] = this.origin();
    const x = ((event.clientX - box.left) * ratio - ox) / scale;
    const y = ((event.clientY - box.top) * ratio - oy) / scale;
    if (!this.grid) { // of cells: which nodes touch it
      this.grid = new Map();
      this.layout.x.forEach((_, index) => {
        const left = Math.floor(this.layout.x[index]), top = Math.floor(this.layout.y[index]);
        for (const key of [`${left},${top}`, `${left + 1},${top}`, `${left},${top + 1}`, `${left + 1},${top + 1}`]) {
          if (!this.grid.has(key)) this.grid.set(key, []);
          this.grid.get(key).push(index);
        }
      });
    }
    const near = this.grid.get(`${Math.floor(x)},${Math.floor(y)}`) || [];
    return near.find((i) => x >= this.layout.x[i] && x < this.layout.x[i] + 1 &&
      y >= this.layout.y[i] && y < this.layout.y[i] + 1) ?? -1;
  }

  zoomBy(factor, clientX, clientY) { // what is under the mouse stays there
    const box = this.canvas.getBoundingClientRect(), ratio = this.canvas.width / box.width;
    const px = (clientX - box.left) * ratio, py = (clientY - box.top) * ratio;
    const before = this.scale, [ox, oy] = this.origin();
    const x = (px - ox) / before, y = (py - oy) / before;
    this.zoom = Math.min(60, Math.max(1, this.zoom * factor));
    if (this.zoom === 1) { this.left = 0; this.top = 0; } else {
      this.left = x - px / this.scale;
      this.top = y - py / this.scale;
    }
    this.draw();
  }

  listen() {
    const surface = this.overlay;
    surface.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY * 0.0015), event.clientX, event.clientY);
    }, { passive: false });
    surface.addEventListener("pointerdown", (event) => {
      this.drag = { x: event.clientX, y: event.clientY, left: this.left, top: this.top, moved: false };
      surface.setPointerCapture(event.pointerId);
    });
    surface.addEventListener("pointermove", (event) => {
      if (this.drag) {
        const ratio = this.canvas.width / this.canvas.getBoundingClientRect().width;
        const dx = event.clientX - this.drag.x, dy = event.clientY - this.drag.y;
        this.drag.moved ||= Math.abs(dx) + Math.abs(dy) > 4;
        if (this.drag.moved && this.zoom > 1) {
          this.left = this.drag.left - (dx * ratio) / this.scale;
          this.top = this.drag.top - (dy * ratio) / this.scale;
          this.draw();
        }
        return;
      }
      const index = this.at(event);
      if (index !== this.hovered) {
        this.hovered = index;
        this.paintOver();
      }
      this.told.hover(index, event.clientX, event.clientY);
    });
    surface.addEventListener("pointerup", (event) => {
      if (this.drag && !this.drag.moved) this.choose(this.at(event));
      this.drag = null;
    });
    surface.addEventListener("pointerleave", () => {
      this.hovered = -1;
      this.told.hover(-1, 0, 0);
      this.paintOver();
    });
  }

  choose(index) {
    this.chosen = index;
    this.paintOver();
    this.told.click(index);
  }

  pageOf(index) { // where a node is on the page, for who wants to click on it
    const box = this.canvas.getBoundingClientRect(), ratio = this.canvas.width / box.width;
    const scale = this.scale, [ox, oy] = this.origin();
    return [box.left + (ox + (this.layout.x[index] + 0.5) * scale) / ratio,
      box.top + (oy + (this.layout.y[index] + 0.5) * scale) / ratio];
  }
}
