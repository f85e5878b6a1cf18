// The picker: every emoji by name, with skin tones, by mouse, touch, keyboard and ear.

import { byId, element, kept } from './dom.js';

/** Whether this browser's fonts have a picture of an emoji: it keeps its colours, and is one glyph and not two. */
function pictured(context, emoji, width) {
  if (context.measureText(emoji).width > width * 1.5) return false;
  const drawn = ['#000', '#fff'].map((colour) => {
    context.clearRect(0, 0, 32, 32);
    context.fillStyle = colour;
    context.fillText(emoji, 2, 24);
    return context.getImageData(0, 0, 32, 32).data;
  });
  return drawn[0].some((value) => value) && drawn[0].every((value, place) => value === drawn[1][place]);
}

/** Leave out what the fonts here cannot show, judged by the first emoji of each version. */
export function shown(choices) {
  const context = Object.assign(document.createElement('canvas'), { width: 32, height: 32 }).getContext('2d', { willReadFrequently: true });
  context.font = `20px ${getComputedStyle(document.documentElement).getPropertyValue('--emoji')}`;
  const { width } = context.measureText('😀');
  if (!pictured(context, '😀', width)) return choices;
  const versions = new Map();
  for (const { emoji, version } of choices) {
    if (!versions.has(version)) versions.set(version, pictured(context, emoji, width));
  }
  return choices.filter(({ version }) => versions.get(version));
}

/** Whether every word of a query begins a word of an emoji's names. */
export function matches(choice, query) {
  const names = ` ${choice.name} ${choice.words}`.toLowerCase().replaceAll('-', ' ');
  return query.toLowerCase().replaceAll('-', ' ').split(/\s+/).filter(Boolean).every((word) => names.includes(` ${word}`));
}

export class Picker {
  #dialog = byId('picker');
  #list = byId('choices');
  #search = byId('search');
  #choices = [];
  #names = new Map();
  #toned = new Map();
  #items = [];
  #loading = null;

  /** `choose(emoji)` is called with what was chosen. */
  constructor(choose) {
    this.choose = choose;
    this.tone = kept.get('tone') ?? '';
    for (const radio of this.#dialog.querySelectorAll('[name=tone]')) radio.checked = radio.value === this.tone;
    this.#search.addEventListener('input', () => this.#filter());
    this.#search.addEventListener('keydown', (event) => this.#fromSearch(event));
    this.#list.addEventListener('click', (event) => this.#take(event.target.closest('[role=option]')));
    this.#list.addEventListener('keydown', (event) => this.#move(event));
    // The form fills the dialog: what hits the dialog itself is outside.
    this.#dialog.addEventListener('click', (event) => event.target === this.#dialog && this.#dialog.close());
    byId('tones').addEventListener('change', (event) => this.#dye(event.target.value));
  }

  /** Fetch the emoji and their names, once. */
  load() {
    this.#loading ??= fetch('/page/emoji.json')
      .then((response) => (response.ok ? response.json() : Promise.reject(new Error(`status ${response.status}`))))
      .then((choices) => {
        for (const choice of choices) {
          this.#names.set(choice.emoji, choice.name);
          choice.tones.forEach((toned) => this.#names.set(toned, choice.name));
          if (choice.tones.length) this.#toned.set(choice.emoji, choice.tones);
        }
        this.#choices = shown(choices);
      })
      .catch((error) => {
        this.#loading = null;
        throw error;
      });
    return this.#loading;
  }

  /** An emoji's name, or itself as long as names are not there. */
  nameOf = (emoji) => this.#names.get(emoji) ?? emoji;

  /** An emoji in the chosen skin tone, if it has any. */
  inTone(emoji) {
    return (this.tone !== '' && this.#toned.get(emoji)?.[Number(this.tone)]) || emoji;
  }

  async open() {
    this.#search.value = '';
    this.#dialog.showModal();
    this.#search.focus();
    try {
      await this.load();
      if (!this.#items.length) this.#fill();
      this.#filter();
    } catch {
      byId('found').textContent = 'The list of emoji could not be fetched: close this, and try again.';
    }
  }

  #fill() {
    this.#items = this.#choices.map((choice) => {
      const item = element('div', '', this.inTone(choice.emoji));
      item.setAttribute('role', 'option');
      item.setAttribute('aria-selected', 'false');
      item.setAttribute('aria-label', choice.name);
      item.title = choice.name;
      item.tabIndex = -1;
      return item;
    });
    this.#list.replaceChildren(...this.#items);
  }

  #filter() {
    const query = this.#search.value;
    let found = 0;
    this.#items.forEach((item, place) => {
      item.hidden = !matches(this.#choices[place], query);
      found += item.hidden ? 0 : 1;
    });
    this.#list.scrollTop = 0;
    this.#rove(this.#visible()[0]);
    byId('found').textContent = query ? `${found || 'Nothing'} found` : '';
  }

  #visible() {
    return this.#items.filter((item) => !item.hidden);
  }

  /** Make one option the one that Tab leads to. */
  #rove(item) {
    for (const other of this.#list.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    if (item) item.tabIndex = 0;
  }

  #fromSearch(event) {
    const [first] = this.#visible();
    if (event.key === 'Enter') {
      // The form would close the dialog.
      event.preventDefault();
      if (this.#search.value) this.#take(first);
    } else if (event.key === 'ArrowDown' && first) {
      event.preventDefault();
      first.focus();
    }
  }

  #move(event) {
    const items = this.#visible();
    const place = items.indexOf(document.activeElement);
    if (place < 0) return;
    const columns = getComputedStyle(this.#list).gridTemplateColumns.split(' ').length;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -place, End: items.length - 1 - place };
    if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      this.#take(items[place]);
    } else if (event.key in steps) {
      event.preventDefault();
      const next = items[place + steps[event.key]];
      if (!next && event.key === 'ArrowUp') this.#search.focus();
      if (!next) return;
      this.#rove(next);
      next.focus();
    }
  }

  #take(item) {
    if (!item) return;
    this.#dialog.close();
    this.choose(item.textContent, this.#choices[this.#items.indexOf(item)].emoji);
  }

  #dye(tone) {
    this.tone = tone;
    kept.set('tone', tone);
    this.#items.forEach((item, place) => {
      item.textContent = this.inTone(this.#choices[place].emoji);
    });
    document.dispatchEvent(new CustomEvent('tone'));
  }
}
