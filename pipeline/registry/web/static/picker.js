// The emoji picker: search by name, skin tones, and use by mouse, touch, keyboard and screen reader.

import { byId, element, stored } from './dom.js';

/** Return whether this browser's fonts can show an emoji: as one glyph, and in its own colours. */
function canShow(context, emoji, width) {
  if (context.measureText(emoji).width > width * 1.5) return false;
  const drawn = ['#000', '#fff'].map((colour) => {
    context.clearRect(0, 0, 32, 32);
    context.fillStyle = colour;
    context.fillText(emoji, 2, 24);
    return context.getImageData(0, 0, 32, 32).data;
  });
  return drawn[0].some((value) => value) && drawn[0].every((value, index) => value === drawn[1][index]);
}

/** Return the choices that the fonts can show; the first emoji of each Emoji version is tested. */
export function shown(choices) {
  const context = Object.assign(document.createElement('canvas'), { width: 32, height: 32 }).getContext('2d', { willReadFrequently: true });
  context.font = `20px ${getComputedStyle(document.documentElement).getPropertyValue('--emoji')}`;
  const { width } = context.measureText('😀');
  if (!canShow(context, '😀', width)) return choices;
  const versions = new Map();
  for (const { emoji, version } of choices) {
    if (!versions.has(version)) versions.set(version, canShow(context, emoji, width));
  }
  return choices.filter(({ version }) => versions.get(version));
}

/** Return whether each word of a query is the start of a word in an emoji's names. */
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

  /** `choose(emoji, plain)` is called with the chosen emoji, in its skin tone and without. */
  constructor(choose) {
    this.choose = choose;
    this.tone = stored.get('tone') ?? '';
    for (const radio of this.#dialog.querySelectorAll('[name=tone]')) radio.checked = radio.value === this.tone;
    this.#search.addEventListener('input', () => this.#filter());
    this.#search.addEventListener('keydown', (event) => this.#fromSearch(event));
    this.#list.addEventListener('click', (event) => this.#choose(event.target.closest('[role=option]')));
    this.#list.addEventListener('keydown', (event) => this.#move(event));
    // The form fills the dialog: a click on the dialog itself is outside of it.
    this.#dialog.addEventListener('click', (event) => event.target === this.#dialog && this.#dialog.close());
    byId('tones').addEventListener('change', (event) => this.#setTone(event.target.value));
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

  /** Return an emoji's name, or the emoji itself before the names are loaded. */
  nameOf = (emoji) => this.#names.get(emoji) ?? emoji;

  /** Return an emoji in the chosen skin tone, if it has skin tones. */
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
      byId('found').textContent = 'The list of emoji could not be loaded: close this dialog and try again.';
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
    let count = 0;
    this.#items.forEach((item, index) => {
      item.hidden = !matches(this.#choices[index], query);
      count += item.hidden ? 0 : 1;
    });
    this.#list.scrollTop = 0;
    this.#setTabStop(this.#visible()[0]);
    byId('found').textContent = query ? `${count || 'Nothing'} found` : '';
  }

  #visible() {
    return this.#items.filter((item) => !item.hidden);
  }

  /** Make one option the only one in the Tab order. */
  #setTabStop(item) {
    for (const other of this.#list.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    if (item) item.tabIndex = 0;
  }

  #fromSearch(event) {
    const [first] = this.#visible();
    if (event.key === 'Enter') {
      // Otherwise Enter submits the form, which closes the dialog.
      event.preventDefault();
      if (this.#search.value) this.#choose(first);
    } else if (event.key === 'ArrowDown' && first) {
      event.preventDefault();
      first.focus();
    }
  }

  #move(event) {
    const items = this.#visible();
    const current = items.indexOf(document.activeElement);
    if (current < 0) return;
    const columns = getComputedStyle(this.#list).gridTemplateColumns.split(' ').length;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -current, End: items.length - 1 - current };
    if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      this.#choose(items[current]);
    } else if (event.key in steps) {
      event.preventDefault();
      const next = items[current + steps[event.key]];
      if (!next && event.key === 'ArrowUp') this.#search.focus();
      if (!next) return;
      this.#setTabStop(next);
      next.focus();
    }
  }

  #choose(item) {
    if (!item) return;
    this.#dialog.close();
    this.choose(item.textContent, this.#choices[this.#items.indexOf(item)].emoji);
  }

  #setTone(tone) {
    this.tone = tone;
    stored.set('tone', tone);
    this.#items.forEach((item, index) => {
      item.textContent = this.inTone(this.#choices[index].emoji);
    });
    document.dispatchEvent(new CustomEvent('tone'));
  }
}
