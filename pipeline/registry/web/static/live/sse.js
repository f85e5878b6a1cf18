// A parser of server-sent events (WHATWG HTML standard, section 9.2); chunks may end anywhere.

export class SseParser {
  constructor() {
    this.retryMs = null;
    /** The stream's last event id; an event without data sets it too. */
    this.lastId = '';
  }

  #id = '';
  #type = '';
  #data = [];
  #rest = '';
  #afterCr = false;
  #started = false;

  /** Return the events that `text` completes, in order, as {id, type, data}. */
  feed(text) {
    if (text && !this.#started) {
      this.#started = true;
      if (text.startsWith('\ufeff')) text = text.slice(1);
    }
    if (text && this.#afterCr) {
      // The line was complete at its CR: a LF that follows belongs to it.
      this.#afterCr = false;
      if (text.startsWith('\n')) text = text.slice(1);
    }
    if (!text) return [];
    this.#afterCr = text.endsWith('\r');
    const lines = (this.#rest + text).split(/\r\n|\r|\n/);
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) {
      const event = this.#take(line);
      if (event) events.push(event);
    }
    return events;
  }

  #take(line) {
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? '' : line.slice(colon + 1);
    if (value.startsWith(' ')) value = value.slice(1);
    if (field === 'data') this.#data.push(value);
    else if (field === 'event') this.#type = value;
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    else if (field === 'retry' && /^[0-9]+$/.test(value)) this.retryMs = Number(value);
    return null;
  }

  #dispatch() {
    const [type, data] = [this.#type, this.#data];
    this.#type = '';
    this.#data = [];
    this.lastId = this.#id;
    return data.length ? { id: this.#id, type: type || 'message', data: data.join('\n') } : null;
  }
}
