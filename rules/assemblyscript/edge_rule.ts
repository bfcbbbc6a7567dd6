// Tidegate rules in AssemblyScript: a class with a method of one event; this file does the rest of rules/ABI.md.
//
//     import { Filter, Input, NUMBER, input, paramF64, run } from "./edge_rule";
//
//     class Hot extends Filter {
//       temp: Input = NOTHING;
//       limit: f64 = 0;
//       open(): void { this.temp = input("temp", NUMBER); this.limit = paramF64("value"); }
//       passes(row: u32): bool { return this.temp.f64(row) > this.limit; }
//     }
//     run(new Hot());
//     export { tg_abi, tg_alloc, tg_open, tg_process } from "./edge_rule";
//
// open() runs once: parameters, inputs, outputs, reject(). Filter: passes(row). Keyed<State>: use(row, state) for each event with what is
// kept of its key, onWatermark(state, time) as the timer. Windowed<Tally>: add(row, tally), close(start, end, tally). Both: counts(row).
// A row that is null in an input is not shown but counted as ignored, unless the input was asked for with NULLS. Compile with --use abort=.
// The state survives a restart of the gateway; another version does not take it over, but is warmed up from the journal.

export const ANY: u32 = 0, F64: u32 = 1, I64: u32 = 2, BOOL: u32 = 3, STR: u32 = 4, TIME: u32 = 5, NUMBER: u32 = 6;
export const OPTIONAL: u32 = 1, NULLS: u32 = 2;
export const FOREVER: i64 = i64.MAX_VALUE;
const NONE: u32 = 0xffffffff;

// Raw memory, which never moves.
class Buffer {
  at: usize = 0;
  size: u32 = 0;
  reserve(size: u32, keep: u32): usize {                  // room for `size` bytes, of which the first `keep` stay
    if (this.at && this.size >= size) return this.at;
    const room = <u32>max<u32>(size, 2 * this.size), at = heap.alloc(room);
    memory.copy(at, this.at, keep);
    if (this.at) heap.free(this.at);
    this.at = at, this.size = room;
    return at;
  }
}
function zeroed(size: u32): usize { const at = heap.alloc(size); memory.fill(at, 0, size); return at; }
function bit(bits: usize, row: u32): bool { return <bool>(load<u8>(bits + (row >> 3)) >> <u8>(row & 7) & 1); }
function setBit(bits: usize, row: u32): void { const at = bits + (row >> 3); store<u8>(at, load<u8>(at) | (1 << <u8>(row & 7))); }
function text(at: usize): string { return String.UTF8.decodeUnsafe(load<u32>(at), load<u32>(at + 4)); }
function putText(to: usize, value: string): void {        // a copy that stays, and its size, as the ABI's Text
  const bytes = String.UTF8.encode(value), at = heap.alloc(bytes.byteLength);
  memory.copy(at, changetype<usize>(bytes), bytes.byteLength);
  store<u32>(to, <u32>at), store<u32>(to + 4, bytes.byteLength);
}

// --- parameters, in open()
let params: usize = 0, refused = "";
function find(name: string): usize {
  for (let i: u32 = 0; i < load<u32>(params); i++) {
    const at = <usize>load<u32>(params + 4) + 24 * i;
    if (text(at) == name) return at;
  }
  return 0;
}
function value(name: string, i: u32, size: u32): usize {
  const at = find(name);
  if (at && i < load<u32>(at + 12)) return <usize>load<u32>(at + 16) + i * size;
  reject("parameter " + name + " is missing");
  return 0;
}
export function paramGiven(name: string): bool { return find(name) != 0; }
export function paramCount(name: string): u32 { const at = find(name); return at ? load<u32>(at + 12) : 0; }
export function paramF64(name: string, i: u32 = 0): f64 { const at = value(name, i, 8); return at ? load<f64>(at) : 0; }
export function paramI64(name: string, i: u32 = 0): i64 { const at = value(name, i, 8); return at ? load<i64>(at) : 0; }   // also bool and duration
export function paramText(name: string, i: u32 = 0): string { const at = value(name, i, 8); return at ? text(at) : ""; }
// Refuses the configuration, saying why to the operator. The first refusal stands.
export function reject(why: string): void { if (!refused.length) refused = why; }

// --- inputs
export class Input {
  column: usize = 0;                                      // of the batch at hand
  constructor(public position: u32, public name: string, public kind: u32, public flags: u32) {}
  get found(): u32 { return load<u32>(this.column); }     // kind of this batch's column; ANY: the stream has no such field
  private get values(): usize { return load<u32>(this.column + 4); }
  isNull(row: u32): bool { const valid = <usize>load<u32>(this.column + 8); return this.found == ANY || (valid != 0 && !bit(valid, row)); }
  f64(row: u32): f64 { return this.found == I64 ? <f64>load<i64>(this.values + 8 * row) : load<f64>(this.values + 8 * row); }
  i64(row: u32): i64 { return load<i64>(this.values + 8 * row); }             // of I64 and TIME
  bool(row: u32): bool { return load<u8>(this.values + row) != 0; }
  code(row: u32): u32 { return load<u32>(this.values + 4 * row); }            // of STR: equal codes, equal strings in this batch
  text(row: u32): string { return this.word(this.code(row)); }
  get words(): u32 { return load<u32>(this.column + 12); }
  word(code: u32): string {
    const offsets = <usize>load<u32>(this.column + 16) + 4 * code, from = load<u32>(offsets);
    return String.UTF8.decodeUnsafe(load<u32>(this.column + 20) + from, load<u32>(offsets + 4) - from);
  }
}
const inputs: Input[] = [];
export const NOTHING = new Input(0, "", ANY, 0);          // what a field holds before open()
export function input(name: string, kind: u32, flags: u32 = 0): Input {
  const made = new Input(inputs.length, name, kind, flags);
  inputs.push(made);
  return made;
}

// --- outputs
export class Output {
  values: Buffer = new Buffer(); valid: Buffer = new Buffer(); offsets: Buffer = new Buffer(); bytes: Buffer = new Buffer();
  words: u32 = 0; filled: u32 = 0;
  constructor(public position: u32, public name: string, public kind: u32, public like: Input | null) {}
  get width(): u32 { return this.kind == BOOL ? 1 : this.kind == STR || this.kind == ANY ? 4 : 8; }
  fill(): usize {                                         // the cell of the newest row, no longer null
    const row = rows - 1;
    if (!bit(this.valid.at, row)) this.filled++, setBit(this.valid.at, row);
    return this.values.at + row * this.width;
  }
  f64(v: f64): void { store<f64>(this.fill(), v); }
  i64(v: i64): void { store<i64>(this.fill(), v); }       // of I64 and TIME
  bool(v: bool): void { store<u8>(this.fill(), <u8>v); }
  text(v: string): void { const bytes = String.UTF8.encode(v); this.intern(changetype<usize>(bytes), bytes.byteLength); }
  intern(at: usize, size: u32): void {
    const n = this.words, offsets = this.offsets.reserve(4 * (n + 2), n ? 4 * (n + 1) : 0);
    if (!n) store<u32>(offsets, 0);
    const end = load<u32>(offsets + 4 * n);
    memory.copy(this.bytes.reserve(end + size + 1, end) + end, at, size);
    store<u32>(offsets + 4 * (n + 1), end + size);
    this.words = n + 1;
    store<u32>(this.fill(), n);
  }
}
const outputs: Output[] = [];
let keyOutput: u32 = NONE, timeOutput: u32 = NONE, rows: u32 = 0, roomRows: u32 = 0;
export const NOWHERE = new Output(0, "", ANY, null);
export function output(name: string, kind: u32): Output {
  const made = new Output(outputs.length, name, kind, null);
  outputs.push(made);
  return made;
}
export function outputTime(name: string): Output { timeOutput = outputs.length; return output(name, TIME); }    // the output stream's event time
export function outputKey(): Output {                     // the key under its own name; write it with putKey
  const made = new Output(outputs.length, "", ANY, keyInput());
  keyOutput = made.position;
  outputs.push(made);
  return made;
}
// A new row, all of it null.
export function emit(): void {
  if (rows == roomRows) {
    const room = roomRows ? 2 * roomRows : 64;
    for (let o = 0; o < outputs.length; o++) {
      outputs[o].values.reserve(room * outputs[o].width, rows * outputs[o].width);
      outputs[o].valid.reserve(room / 8, (rows + 7) / 8);
    }
    roomRows = room;
  }
  for (let o = 0; o < outputs.length; o++) {
    const out = outputs[o];
    if (!rows) out.words = out.filled = 0;
    memory.fill(out.values.at + rows * out.width, 0, out.width);
    const at = out.valid.at + (rows >> 3);
    store<u8>(at, load<u8>(at) & ~(0xff << <u8>(rows & 7)));
  }
  rows++;
}
export function putKey(to: Output, key: string): void { if (keyInput().found != ANY) to.text(key); }

// --- the batch at hand
let batch: usize = 0, usable: usize = 0, ignored: u32 = 0, lateRows: usize = 0;
const usableBits = new Buffer(), lateBits = new Buffer(), selectedBits = new Buffer();
let theKey: Input | null = null;
export function keyInput(): Input {
  if (theKey == null) theKey = input("$key", STR, OPTIONAL);
  return theKey!;
}
export function rowsIn(): u32 { return load<u32>(batch); }
function cleared(bits: Buffer): usize { const size = (rowsIn() + 7) / 8, at = bits.reserve(size + 1, 0); memory.fill(at, 0, size); return at; }
export function late(row: u32): void { if (!lateRows) lateRows = cleared(lateBits); setBit(lateRows, row); }
export function ignore(): void { ignored++; }
function isUsable(row: u32): bool { return !usable || bit(usable, row); }
function begin(): void {
  rows = ignored = 0, usable = lateRows = 0;
  const n = rowsIn();
  for (let i = 0; i < inputs.length; i++) {
    const one = inputs[i];
    one.column = <usize>load<u32>(batch + 48) + 24 * one.position;
    const valid = <usize>load<u32>(one.column + 8);
    if (one.flags & NULLS || !valid || one.found == ANY) continue;
    if (!usable) usable = cleared(usableBits), memory.fill(usable, 0xff, (n + 7) / 8);
    for (let b: u32 = 0; b < (n + 7) / 8; b++) store<u8>(usable + b, load<u8>(usable + b) & load<u8>(valid + b));
  }
  if (usable) for (let r: u32 = 0; r < n; r++) ignored += <u32>!bit(usable, r);
}

// --- forms of rules
export abstract class Rule {
  abstract open(): void;
  abstract process(): void;
  selected: usize = 0;
}
export abstract class Filter extends Rule {
  abstract passes(row: u32): bool;
  process(): void {
    this.selected = cleared(selectedBits);
    for (let r: u32 = 0; r < rowsIn(); r++) if (isUsable(r) && this.passes(r)) setBit(this.selected, r);
  }
}

// At most `max_keys` (a parameter, 10,000 without it) are kept: a further one first closes the one unused for the most batches.
class Key<S> {
  older: Key<S> | null = null; newer: Key<S> | null = null;
  constructor(public name: string, public state: S) {}
}
export abstract class Keyed<S> extends Rule {
  key: string = "";                                       // of the event or state at hand
  private known: Map<string, Key<S>> = new Map<string, Key<S>>();
  private slots: (Key<S> | null)[] = [];                  // by code of this batch
  private oldest: Key<S> | null = null; private newest: Key<S> | null = null;
  abstract use(row: u32, state: S): void;
  abstract onWatermark(state: S, watermark: i64): void;
  counts(row: u32): bool { return true; }                 // it is as if other events were not there

  process(): void {
    const key = keyInput(), keyed = key.found != ANY, codes: u32 = keyed ? key.words : 1;
    this.slots = new Array<Key<S> | null>(codes);
    for (let r: u32 = 0; r < rowsIn(); r++) {
      if (!isUsable(r) || !this.counts(r)) continue;
      const code = keyed ? key.code(r) : 0, k = this.slots[code], at = k != null ? k : this.touch(code, keyed ? key.word(code) : "");
      this.key = at.name;
      this.use(r, at.state);
    }
    for (let c: u32 = 0; c < codes; c++) {
      const name = keyed ? key.word(c) : "", watermark = keyed ? load<i64>(<usize>load<u32>(batch + 40) + 8 * c) : load<i64>(batch + 24);
      if (!this.known.has(name)) continue;
      const k = this.known.get(name);
      if (watermark == FOREVER) { this.closeKey(k); continue; }
      this.key = name;
      this.onWatermark(k.state, watermark);
    }
  }
  private touch(code: u32, name: string): Key<S> {
    let k: Key<S>;
    if (this.known.has(name)) { k = this.known.get(name); this.unlink(k); }
    else {
      while (<i64>this.known.size >= keysMax) this.closeKey(this.oldest!);
      k = new Key<S>(name, instantiate<S>());
      this.known.set(name, k);
    }
    k.older = this.newest, k.newer = null;
    if (this.newest != null) this.newest!.newer = k; else this.oldest = k;
    this.newest = k;
    this.slots[code] = k;
    return k;
  }
  private unlink(k: Key<S>): void {
    if (k.older != null) k.older!.newer = k.newer; else this.oldest = k.newer;
    if (k.newer != null) k.newer!.older = k.older; else this.newest = k.older;
  }
  private closeKey(k: Key<S>): void {
    this.key = k.name;
    this.onWatermark(k.state, FOREVER);
    for (let c = 0; c < this.slots.length; c++) if (this.slots[c] == k) this.slots[c] = null;
    this.unlink(k);
    this.known.delete(k.name);
  }
}
let keysMax: i64 = 10000;

// Tumbling windows of event time: [start, start + length), start a whole multiple of length since 1970. Open ones, oldest first.
export class Windows<T> { starts: i64[] = []; tallies: T[] = []; closed: i64 = i64.MIN_VALUE; }
export abstract class Windowed<T> extends Keyed<Windows<T>> {
  length: i64 = 0;
  time: Input = NOTHING;
  abstract add(row: u32, tally: T): void;
  abstract close(start: i64, end: i64, tally: T): void;
  windowEvery(length: i64): void {                        // in open(); nanoseconds
    if (length < 1) reject("the window's length must be above 0");
    this.length = length;
    this.time = input("$time", TIME);
    keyInput();
  }
  use(row: u32, state: Windows<T>): void {
    const t = this.time.i64(row), into = t % this.length, start = t - (into < 0 ? into + this.length : into);
    if (t < -(1 << 62) || t > 1 << 62) { ignore(); return; }
    if (start + this.length <= state.closed) { late(row); return; }
    let i = state.starts.length;
    while (i > 0 && state.starts[i - 1] > start) i--;
    if (i == 0 || state.starts[i - 1] != start) {
      state.starts.push(start), state.tallies.push(instantiate<T>());
      for (let j = state.starts.length - 1; j > i; j--) {
        state.starts[j] = state.starts[j - 1];
        const made = state.tallies[j];
        state.tallies[j] = state.tallies[j - 1], state.tallies[j - 1] = made;
      }
      state.starts[i] = start;
      i++;
    }
    this.add(row, state.tallies[i - 1]);
  }
  onWatermark(state: Windows<T>, watermark: i64): void {
    while (state.starts.length && state.starts[0] + this.length <= watermark) {
      const start = state.starts.shift();
      this.close(start, start + this.length, state.tallies.shift());
    }
    state.closed = max<i64>(state.closed, watermark);
  }
}

// --- the ABI
let rule: Rule | null = null;
const area = new Buffer(), plan = zeroed(40), result = zeroed(32), columns = new Buffer();
export function run(made: Rule): void { rule = made; }

export function tg_abi(): i32 { return 1; }
export function tg_alloc(size: u32): usize { return area.reserve(size, 0); }
export function tg_open(given: usize): usize {
  params = given;
  if (paramGiven("max_keys")) keysMax = paramI64("max_keys");
  if (keysMax < 1 || keysMax > 1000000) reject("max_keys must be from 1 to 1000000");
  rule!.open();
  const ins = zeroed(16 * inputs.length + 16), outs = zeroed(16 * outputs.length + 16);
  for (let i = 0; i < inputs.length; i++) {
    putText(ins + 16 * i, inputs[i].name);
    store<u32>(ins + 16 * i + 8, inputs[i].kind), store<u32>(ins + 16 * i + 12, inputs[i].flags & OPTIONAL);
  }
  for (let o = 0; o < outputs.length; o++) {
    const like = outputs[o].like;
    putText(outs + 16 * o, outputs[o].name);
    store<u32>(outs + 16 * o + 8, outputs[o].kind), store<u32>(outs + 16 * o + 12, like == null ? 0 : like.position);
  }
  store<u32>(plan, 1), store<u32>(plan + 4, outputs.length ? 2 : 1);
  store<u32>(plan + 8, inputs.length), store<u32>(plan + 12, <u32>ins), store<u32>(plan + 16, outputs.length), store<u32>(plan + 20, <u32>outs);
  store<u32>(plan + 24, keyOutput), store<u32>(plan + 28, timeOutput);
  if (refused.length) putText(plan + 32, refused);
  return plan;
}
export function tg_process(given: usize): usize {
  batch = given;
  begin();
  rule!.selected = 0;
  rule!.process();
  columns.reserve(24 * outputs.length, 0);
  for (let o = 0; rows && o < outputs.length; o++) {
    const out = outputs[o], at = columns.at + 24 * o, words = out.words;
    store<u32>(at, out.kind == ANY ? STR : out.kind), store<u32>(at + 4, <u32>out.values.at), store<u32>(at + 8, out.filled < rows ? <u32>out.valid.at : 0);
    store<u32>(at + 12, words), store<u32>(at + 16, words ? <u32>out.offsets.at : 0), store<u32>(at + 20, words ? <u32>out.bytes.at : 0);
  }
  store<u32>(result, rowsIn() ? <u32>rule!.selected : 0), store<u32>(result + 4, <u32>lateRows);
  store<u32>(result + 8, rows), store<u32>(result + 12, rows ? <u32>columns.at : 0), store<u32>(result + 16, ignored);
  return result;
}
