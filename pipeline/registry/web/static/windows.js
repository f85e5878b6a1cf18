// The last windows: bars, the ranking of the newest window, and its tally without motion.

import { byId, element, whole } from './dom.js';

const BARS = 20;
const RANKED = 6;
const TALLIED = 40;

/** Return a window's reactions, the most frequent first. */
export function ranked(window) {
  return [...window.reactions].sort((a, b) => b.count - a.count);
}

export class Bars {
  #list = byId('chart');
  #totals = [];
  #gap = false;

  /** Mark that windows are missing before the next one. */
  gap() {
    this.#gap = this.#totals.length > 0;
  }

  add(window, nameOf) {
    const [top] = ranked(window);
    const item = element('li');
    const bar = element('div', 'bar');
    const emoji = element('span', 'emoji', top?.emoji_type ?? '');
    const most = top ? `, most ${nameOf(top.emoji_type)}` : '';
    const gap = this.#gap ? ', after missed windows' : '';
    item.classList.toggle('gap', this.#gap);
    bar.setAttribute('aria-hidden', 'true');
    emoji.setAttribute('aria-hidden', 'true');
    item.append(element('span', 'unseen', `${whole(window.total)} reactions${most}${gap}`), bar, emoji);
    item.title = `window ${window.window}: ${whole(window.total)} reactions`;
    this.#gap = false;
    this.#totals.push(window.total);
    this.#list.append(item);
    if (this.#totals.length > BARS) {
      this.#totals.shift();
      this.#list.firstElementChild.remove();
    }
    this.#scale();
  }

  #scale() {
    const most = Math.max(1, ...this.#totals);
    byId('chart-top').textContent = `highest ${whole(most)} ${most === 1 ? 'reaction' : 'reactions'}`;
    [...this.#list.children].forEach((item, index) => {
      item.querySelector('.bar').style.height = `${(78 * this.#totals[index]) / most}%`;
    });
  }
}

/** Show the newest window's most frequent emoji and their counts. */
export function showRanking(window, nameOf) {
  const top = ranked(window).slice(0, RANKED);
  byId('now').replaceChildren(
    ...top.map(({ emoji_type: emoji, count }) => {
      const item = element('li');
      const picture = element('span', 'emoji', emoji);
      picture.setAttribute('role', 'img');
      picture.setAttribute('aria-label', nameOf(emoji));
      const track = element('span', 'track');
      const bar = element('i');
      bar.style.width = `${(100 * count) / top[0].count}%`;
      track.append(bar);
      item.append(picture, track, element('span', '', whole(count)));
      return item;
    }),
  );
}

/**
 * Show the number of representatives per emoji in a window: the swarm without motion. The own taps `own`, which are in a
 * coming window, stand first.
 */
export function showTally(window, nameOf, own = []) {
  const represented = ranked(window).filter((reaction) => reaction.representatives);
  const items = represented.slice(0, TALLIED).map(({ emoji_type: emoji, representatives }) => {
    const item = element('li');
    const picture = element('span', 'emoji', emoji);
    picture.setAttribute('role', 'img');
    picture.setAttribute('aria-label', nameOf(emoji));
    item.append(picture, element('span', '', `× ${whole(representatives)}`));
    return item;
  });
  if (represented.length > TALLIED) items.push(element('li', '', `and ${whole(represented.length - TALLIED)} more emoji`));
  const taps = [...new Set(own)].map((emoji) => {
    const item = element('li', 'own');
    const picture = element('span', 'emoji', emoji);
    picture.setAttribute('role', 'img');
    picture.setAttribute('aria-label', nameOf(emoji));
    item.append(picture, element('span', '', `× ${own.filter((each) => each === emoji).length} from you`));
    return item;
  });
  byId('tally').replaceChildren(...taps, ...items);
}
