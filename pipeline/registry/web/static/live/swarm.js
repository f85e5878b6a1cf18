// The swarm: one sprite per representative, started evenly over the time until the next window, and one per own tap,
// started at once.
//
// There is one animation loop, motion depends on time and not on frames, typed arrays replace objects, and glyphs are
// drawn once into bitmaps: a frame allocates nothing. The loop stops when no sprite is left.

export const SPRITES_MAX = 2_000;
const GLYPHS_MAX = 512;
const LIFE_S = 8;
const OWN_LIFE_S = 5;
// In an area lower than this, CSS pixels, an own tap is smaller.
const [LOW, OWN_SIZE_LOW] = [300, 40];
// Own taps start up to half of this away from their button, in widths of a sprite.
const SCATTER = 0.9;
// After a hidden tab is shown again, sprites do not jump.
const STEP_MAX_S = 0.1;
const SWAY_MAX = 24;
const SIZES = [22, 30, 40, 52, 64];
// With more sprites than this, positions are whole pixels: bitmaps are copied, not interpolated, and look the same.
const SNAP_ABOVE = 300;
const FONT = '"Apple Color Emoji","Segoe UI Emoji","Noto Color Emoji",sans-serif';

/** Return the size, CSS pixels, at which `count` sprites fill a third of an area. */
export function sizeFor(count, width, height) {
  const wanted = Math.sqrt((width * height * 0.33) / Math.max(1, count));
  return SIZES.findLast((size) => size <= wanted) ?? SIZES[0];
}

/** Return how many of a window's representatives start: all, or fewer so that at most `SPRITES_MAX` are visible. */
export function startingCount(representatives, spreadS) {
  return Math.min(representatives, Math.floor((SPRITES_MAX * spreadS) / LIFE_S));
}

export class Swarm {
  #canvas;
  #context;
  #width = 1;
  #height = 1;
  #scale = 1;
  #frame = 0;
  #lastMs = 0;
  #nowS = 0;
  #count = 0;
  // sprites
  #left = new Float32Array(SPRITES_MAX);
  #born = new Float64Array(SPRITES_MAX);
  #life = new Float32Array(SPRITES_MAX);
  #sway = new Float32Array(SPRITES_MAX);
  #phase = new Float32Array(SPRITES_MAX);
  #glyph = new Uint16Array(SPRITES_MAX);
  // glyphs
  #bitmaps = new Array(GLYPHS_MAX).fill(null);
  #keys = new Array(GLYPHS_MAX).fill('');
  #users = new Uint16Array(GLYPHS_MAX);
  #slots = new Map();
  // sprites to start
  #waiting = [];
  #started = 0;
  #spreadStartS = 0;
  #spreadS = 1;
  #size = SIZES.at(-1);

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext('2d');
    this.step = this.step.bind(this);
    new ResizeObserver(() => this.#resize()).observe(canvas);
    this.#resize();
  }

  get count() {
    return this.#count;
  }

  /** Start a window's representatives over `spreadS` seconds; return the number of representatives per sprite. */
  show(reactions, spreadS) {
    let all = 0;
    for (const reaction of reactions) all += reaction.representatives;
    const count = startingCount(all, spreadS);
    this.#waiting = pick(reactions, all, count);
    this.#started = 0;
    this.#spreadStartS = this.#nowS;
    this.#spreadS = spreadS;
    this.#size = sizeFor((count * LIFE_S) / spreadS, this.#width, this.#height);
    if (count) this.#animate();
    return count ? all / count : 1;
  }

  /**
   * Start one sprite at once, large and in full view, near the place `clientX`, CSS pixels in the window: quick taps of
   * one button each have a path of their own.
   */
  fly(emoji, clientX) {
    if (this.#count >= SPRITES_MAX) this.#removeSprite(0);
    const glyph = this.#glyphOf(emoji, this.#height < LOW ? OWN_SIZE_LOW : SIZES.at(-1));
    if (glyph < 0) return;
    const { width, height } = this.#bitmaps[glyph];
    const [margin, canvas] = [SWAY_MAX * this.#scale, this.#canvas];
    const x = (clientX - canvas.getBoundingClientRect().left) * this.#scale - width * (0.5 + SCATTER * (Math.random() - 0.5)) - margin;
    const left = Math.min(1, Math.max(0, x / Math.max(1, canvas.width - width - 2 * margin)));
    this.#add(glyph, left, OWN_LIFE_S, 0.25 + Math.random() * 0.5, Math.random() * 6.283, height / (canvas.height + height));
    this.#animate();
  }

  /**
   * Show a window's representatives without motion, instead of all sprites; return as `show` does.
   * One seed gives one picture.
   */
  still(reactions, seed) {
    this.clear();
    const random = seeded(seed);
    const all = reactions.reduce((sum, reaction) => sum + reaction.representatives, 0);
    const emoji = pick(reactions, all, Math.min(all, SPRITES_MAX), random);
    this.#size = sizeFor(emoji.length, this.#width, this.#height);
    for (const each of emoji) this.#startSprite(each, random, 0.1 + random() * 0.7);
    this.#draw();
    return emoji.length ? all / emoji.length : 1;
  }

  /** Remove all sprites and stop. */
  clear() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#waiting = [];
    this.#users.fill(0);
    this.#count = 0;
    this.#context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
  }

  step(ms) {
    this.#nowS += Math.min(STEP_MAX_S, Math.max(0, (ms - this.#lastMs) / 1000));
    this.#lastMs = ms;
    const share = Math.min(1, (this.#nowS - this.#spreadStartS) / this.#spreadS);
    const due = Math.ceil(share * this.#waiting.length);
    while (this.#started < due) this.#startSprite(this.#waiting[this.#started++]);
    this.#draw();
    const idle = this.#count === 0 && this.#started >= this.#waiting.length;
    this.#frame = idle ? 0 : requestAnimationFrame(this.step);
  }

  #animate() {
    if (this.#frame) return;
    this.#lastMs = performance.now();
    this.#frame = requestAnimationFrame(this.step);
  }

  #draw() {
    const context = this.#context;
    const width = this.#canvas.width;
    const height = this.#canvas.height;
    const snap = this.#count > SNAP_ABOVE;
    const margin = SWAY_MAX * this.#scale;
    context.clearRect(0, 0, width, height);
    for (let i = 0; i < this.#count; ) {
      const age = (this.#nowS - this.#born[i]) / this.#life[i];
      if (age >= 1) {
        this.#removeSprite(i);
        continue;
      }
      const bitmap = this.#bitmaps[this.#glyph[i]];
      const swayed = this.#sway[i] * this.#scale * Math.sin(this.#phase[i] + age * 9);
      const x = margin + this.#left[i] * Math.max(0, width - bitmap.width - 2 * margin) + swayed;
      const y = height - age * (height + bitmap.height);
      context.globalAlpha = age > 0.8 ? (1 - age) * 5 : 1;
      context.drawImage(bitmap, snap ? Math.round(x) : x, snap ? Math.round(y) : y);
      i += 1;
    }
    context.globalAlpha = 1;
  }

  #startSprite(emoji, random = Math.random, age = 0) {
    if (this.#count >= SPRITES_MAX) return;
    const near = random() < 0.6;
    const glyph = this.#glyphOf(emoji, near ? this.#size : Math.round(this.#size * 0.75));
    if (glyph < 0) return;
    // Small sprites look further away, so they move more slowly.
    const lifeS = LIFE_S * (near ? 0.75 + random() * 0.35 : 1 + random() * 0.3);
    this.#add(glyph, random(), lifeS, 0.25 + random() * 0.75, random() * 6.283, age);
  }

  /** Add a sprite; `left`, `sway` and `age` are shares from 0 to 1, of the width, of the most, and of its life. */
  #add(glyph, left, lifeS, sway, phase, age) {
    const i = this.#count++;
    this.#users[glyph] += 1;
    this.#glyph[i] = glyph;
    this.#left[i] = left;
    this.#born[i] = this.#nowS - age * lifeS;
    this.#life[i] = lifeS;
    this.#sway[i] = SWAY_MAX * sway;
    this.#phase[i] = phase;
  }

  #removeSprite(i) {
    this.#users[this.#glyph[i]] -= 1;
    const last = --this.#count;
    this.#left[i] = this.#left[last];
    this.#born[i] = this.#born[last];
    this.#life[i] = this.#life[last];
    this.#sway[i] = this.#sway[last];
    this.#phase[i] = this.#phase[last];
    this.#glyph[i] = this.#glyph[last];
  }

  /** Return the slot of a glyph's bitmap, drawn if needed; -1 when visible sprites use all slots. */
  #glyphOf(emoji, size) {
    const key = `${emoji} ${size}`;
    let slot = this.#slots.get(key);
    if (slot !== undefined) return slot;
    slot = this.#bitmaps.indexOf(null);
    if (slot < 0) slot = this.#users.indexOf(0);
    if (slot < 0) return -1;
    this.#slots.delete(this.#keys[slot]);
    this.#bitmaps[slot]?.close();
    this.#bitmaps[slot] = glyphBitmap(emoji, Math.round(size * this.#scale));
    this.#keys[slot] = key;
    this.#slots.set(key, slot);
    return slot;
  }

  #resize() {
    const box = this.#canvas.getBoundingClientRect();
    // Three pixels per CSS pixel look like two, and cost more than twice as much.
    const scale = Math.min(2, devicePixelRatio || 1);
    if (scale !== this.#scale) {
      this.#slots.clear();
      this.#keys.fill('');
    }
    this.#scale = scale;
    this.#width = Math.max(1, box.width);
    this.#height = Math.max(1, box.height);
    this.#canvas.width = Math.round(this.#width * scale);
    this.#canvas.height = Math.round(this.#height * scale);
    // A new size clears the canvas.
    if (!this.#frame && this.#count) this.#draw();
  }
}

/** Return `count` emoji out of `all` representatives, in their proportions and in random order. */
export function pick(reactions, all, count, random = Math.random) {
  const every = [];
  // Take every (all / count)-th representative in order: rare emoji keep their share.
  let [seen, next] = [0, 0.5];
  for (const { emoji_type: emoji, representatives } of reactions) {
    seen += representatives;
    for (; ((next * all) / count) < seen && every.length < count; next += 1) every.push(emoji);
  }
  for (let i = every.length - 1; i > 0; i -= 1) {
    const j = Math.floor(random() * (i + 1));
    [every[i], every[j]] = [every[j], every[i]];
  }
  return every;
}

/** Return a generator of numbers from 0 to 1 that is the same for the same seed: a linear congruential one. */
function seeded(seed) {
  let state = seed >>> 0;
  return () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32;
}

function glyphBitmap(emoji, px) {
  const side = Math.ceil(px * 1.3);
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext('2d');
  context.font = `${px}px ${FONT}`;
  context.textAlign = 'center';
  context.textBaseline = 'middle';
  context.fillStyle = '#888';
  context.fillText(emoji, side / 2, side / 2 + px * 0.06);
  return canvas.transferToImageBitmap();
}
