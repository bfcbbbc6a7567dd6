//! Tidegate rules in Rust: a type with a method of one event; this file does the rest of rules/ABI.md. No crates.
//!
//!     mod edge_rule;
//!     use edge_rule::*;
//!
//!     struct Hot { temp: Input, limit: f64 }
//!     impl Filter for Hot {
//!         fn open(plan: &mut Plan) -> Result<Self, String> { Ok(Hot { temp: plan.input("temp", NUMBER, 0), limit: plan.f64("value")? }) }
//!         fn passes(&self, e: &Event) -> bool { e.f64(self.temp) > self.limit }
//!     }
//!     rule!(Filtering<Hot>);
//!
//! `open` runs once; an Err says to the operator what is wrong with the parameters. `Filtering<impl Filter>`, `ByKey<impl Keyed>` with a State of each
//! key and the watermark as timer, `InWindows<impl Windowed>` with a Tally of each window. A row that is null in an input is not shown but counted as
//! ignored, unless the input was asked for with NULLS. The state survives a restart of the gateway; another version does not take it over, but is
//! warmed up from the journal.
#![allow(dead_code)]
use std::alloc::{alloc, dealloc, Layout};
use std::cell::UnsafeCell;
use std::collections::BTreeMap;

pub const ANY: u32 = 0;
pub const F64: u32 = 1;
pub const I64: u32 = 2;
pub const BOOL: u32 = 3;
pub const STR: u32 = 4;
pub const TIME: u32 = 5;
pub const NUMBER: u32 = 6;
pub const OPTIONAL: u32 = 1;
pub const NULLS: u32 = 2;
pub const FOREVER: i64 = i64::MAX;
const NONE: u32 = u32::MAX;

fn at<T: Copy>(address: u32) -> T { unsafe { std::ptr::read_unaligned(address as *const T) } }
fn bytes(address: u32, size: u32) -> &'static [u8] {
    if size == 0 { return &[]; }
    unsafe { std::slice::from_raw_parts(address as *const u8, size as usize) }
}
fn text(address: u32) -> &'static str { string(at(address), at(address + 4)) }
fn string(address: u32, size: u32) -> &'static str { unsafe { std::str::from_utf8_unchecked(bytes(address, size)) } }    // the host checked it
fn bit(bits: u32, row: u32) -> bool { at::<u8>(bits + (row >> 3)) >> (row & 7) & 1 == 1 }
fn set(bits: &mut [u8], row: u32) { bits[row as usize >> 3] |= 1 << (row & 7); }

// --- the plan
#[derive(Clone, Copy)]
pub struct Input(u32);
#[derive(Clone, Copy)]
pub struct Output(u32);
struct Field { name: String, kind: u32, flags: u32 }
pub struct Plan { params: u32, inputs: Vec<Field>, outputs: Vec<Field>, key_input: Option<Input>, key: u32, time: u32 }
impl Plan {
    fn find(&self, name: &str) -> Option<u32> { (0..at::<u32>(self.params)).map(|i| at::<u32>(self.params + 4) + 24 * i).find(|&p| text(p) == name) }
    fn value(&self, name: &str, i: u32) -> Result<u32, String> {
        self.find(name).filter(|&p| i < at::<u32>(p + 12)).map(|p| at::<u32>(p + 16) + 8 * i).ok_or_else(|| format!("parameter {} is missing", name))
    }
    pub fn given(&self, name: &str) -> bool { self.find(name).is_some() }
    pub fn count(&self, name: &str) -> u32 { self.find(name).map_or(0, |p| at(p + 12)) }
    pub fn f64_at(&self, name: &str, i: u32) -> Result<f64, String> { self.value(name, i).map(at) }
    pub fn i64_at(&self, name: &str, i: u32) -> Result<i64, String> { self.value(name, i).map(at) }
    pub fn text_at(&self, name: &str, i: u32) -> Result<String, String> { self.value(name, i).map(|v| text(v).to_string()) }
    pub fn f64(&self, name: &str) -> Result<f64, String> { self.f64_at(name, 0) }
    pub fn i64(&self, name: &str) -> Result<i64, String> { self.i64_at(name, 0) }          // also bool and duration
    pub fn text(&self, name: &str) -> Result<String, String> { self.text_at(name, 0) }     // also a field's name
    pub fn input(&mut self, name: &str, kind: u32, flags: u32) -> Input {                  // flags: OPTIONAL, NULLS
        self.inputs.push(Field { name: name.to_string(), kind, flags });
        Input(self.inputs.len() as u32 - 1)
    }
    pub fn key_input(&mut self) -> Input {
        let key = self.key_input.unwrap_or_else(|| self.input("$key", STR, OPTIONAL));
        self.key_input = Some(key);
        key
    }
    pub fn output(&mut self, name: &str, kind: u32) -> Output {
        self.outputs.push(Field { name: name.to_string(), kind, flags: 0 });
        Output(self.outputs.len() as u32 - 1)
    }
    pub fn output_time(&mut self, name: &str) -> Output {                                  // the output stream's event time
        self.time = self.outputs.len() as u32;
        self.output(name, TIME)
    }
    pub fn output_key(&mut self) -> Output {                                               // the key under its own name; write it with put_key
        self.key = self.outputs.len() as u32;
        let like = self.key_input().0;
        self.outputs.push(Field { name: String::new(), kind: ANY, flags: like });
        Output(self.key)
    }
    fn words(&self, error: &str) -> Vec<u32> {                                             // Plan and FieldRefs; what they point to stays
        let list = |fields: &[Field], mask: u32| -> Vec<u32> {
            fields.iter().flat_map(|f| [f.name.clone().into_bytes().leak().as_ptr() as u32, f.name.len() as u32, f.kind, if f.kind == ANY { f.flags } else { f.flags & mask }]).collect()
        };
        let (ins, outs) = (list(&self.inputs, OPTIONAL).leak(), list(&self.outputs, 0).leak());
        let mode = if self.outputs.is_empty() { 1 } else { 2 };
        let said = error.to_string().into_bytes().leak();
        vec![1, mode, self.inputs.len() as u32, ins.as_ptr() as u32, self.outputs.len() as u32, outs.as_ptr() as u32, self.key, self.time,
             if said.is_empty() { 0 } else { said.as_ptr() as u32 }, said.len() as u32]
    }
}

// --- the batch at hand
#[derive(Clone, Copy)]
pub struct Batch(u32);
impl Batch {
    pub fn rows(self) -> u32 { at(self.0) }
    pub fn watermark(self) -> i64 { at(self.0 + 24) }
    fn key_watermark(self, code: u32) -> i64 { at(at::<u32>(self.0 + 40) + 8 * code) }
    fn column(self, i: Input) -> u32 { at::<u32>(self.0 + 48) + 24 * i.0 }
    pub fn kind(self, i: Input) -> u32 { at(self.column(i)) }                              // ANY: the stream has no such field
    pub fn words(self, i: Input) -> u32 { at(self.column(i) + 12) }
    pub fn word(self, i: Input, code: u32) -> &'static str {
        let offsets = at::<u32>(self.column(i) + 16) + 4 * code;
        string(at::<u32>(self.column(i) + 20) + at::<u32>(offsets), at::<u32>(offsets + 4) - at::<u32>(offsets))
    }
}
pub struct Event { pub batch: Batch, pub row: u32 }
impl Event {
    fn cell<T: Copy>(&self, i: Input) -> T { at(at::<u32>(self.batch.column(i) + 4) + std::mem::size_of::<T>() as u32 * self.row) }
    pub fn f64(&self, i: Input) -> f64 { if self.batch.kind(i) == I64 { self.cell::<i64>(i) as f64 } else { self.cell(i) } }
    pub fn i64(&self, i: Input) -> i64 { self.cell(i) }                                    // of I64 and TIME
    pub fn bool(&self, i: Input) -> bool { self.cell::<u8>(i) != 0 }
    pub fn code(&self, i: Input) -> u32 { self.cell(i) }                                   // of STR: equal codes, equal strings in this batch
    pub fn text(&self, i: Input) -> &'static str { self.batch.word(i, self.code(i)) }      // until the next batch
    pub fn is_null(&self, i: Input) -> bool {
        let valid = at::<u32>(self.batch.column(i) + 8);
        self.batch.kind(i) == ANY || (valid != 0 && !bit(valid, self.row))
    }
}

// --- what a rule answers
#[derive(Default)]
struct Column { kind: u32, values: Vec<u8>, valid: Vec<u8>, filled: u32, offsets: Vec<u32>, bytes: Vec<u8> }
pub struct Answer { columns: Vec<Column>, rows: u32, selected: Vec<u8>, late: Vec<u8>, late_n: u32, ignored: u32, usable: Option<Vec<u8>>, batch: Batch, key: Option<Input> }
impl Answer {
    pub fn emit(&mut self) {                                                               // a new row, all of it null
        self.rows += 1;
        for c in &mut self.columns {
            c.values.resize(c.values.len() + width(c.kind), 0);
            c.valid.resize((self.rows as usize + 7) / 8, 0);
        }
    }
    fn put<const N: usize>(&mut self, o: Output, value: [u8; N]) {
        let (row, c) = (self.rows - 1, &mut self.columns[o.0 as usize]);
        if c.valid[row as usize >> 3] >> (row & 7) & 1 == 0 { c.filled += 1; }
        set(&mut c.valid, row);
        c.values[N * row as usize..N * row as usize + N].copy_from_slice(&value);
    }
    pub fn put_f64(&mut self, o: Output, v: f64) { self.put(o, v.to_le_bytes()); }
    pub fn put_i64(&mut self, o: Output, v: i64) { self.put(o, v.to_le_bytes()); }         // of I64 and TIME
    pub fn put_bool(&mut self, o: Output, v: bool) { self.put(o, [v as u8]); }
    pub fn put_text(&mut self, o: Output, v: &str) {
        let c = &mut self.columns[o.0 as usize];
        if c.offsets.is_empty() { c.offsets.push(0); }
        let code = c.offsets.len() as u32 - 1;
        c.bytes.extend_from_slice(v.as_bytes());
        c.offsets.push(c.bytes.len() as u32);
        self.put(o, code.to_le_bytes());
    }
    pub fn put_key(&mut self, o: Output, key: &str) { if self.key.map_or(false, |k| self.batch.kind(k) != ANY) { self.put_text(o, key); } }
    pub fn late(&mut self, e: &Event) { self.late_n += 1; set(&mut self.late, e.row); }
    pub fn ignore(&mut self) { self.ignored += 1; }
    fn is_usable(&self, row: u32) -> bool { self.usable.as_ref().map_or(true, |u| u[row as usize >> 3] >> (row & 7) & 1 == 1) }
    fn begin(&mut self, batch: Batch, inputs: &[Field]) {
        let (n, size) = (batch.rows(), (batch.rows() as usize + 7) / 8);
        self.batch = batch;
        self.rows = 0;
        self.late_n = 0;
        self.ignored = 0;
        for c in &mut self.columns { c.values.clear(); c.valid.clear(); c.filled = 0; c.offsets.clear(); c.bytes.clear(); }
        for bits in [&mut self.selected, &mut self.late] { bits.clear(); bits.resize(size, 0); }
        self.usable = None;
        for (i, field) in inputs.iter().enumerate() {
            let valid = at::<u32>(batch.column(Input(i as u32)) + 8);
            if field.flags & NULLS != 0 || valid == 0 || batch.kind(Input(i as u32)) == ANY { continue; }
            let usable = self.usable.get_or_insert_with(|| vec![0xff; size]);
            for (u, v) in usable.iter_mut().zip(bytes(valid, size as u32)) { *u &= v; }
        }
        if self.usable.is_some() { self.ignored = (0..n).filter(|&r| !self.is_usable(r)).count() as u32; }
    }
}
fn width(kind: u32) -> usize { match kind { BOOL => 1, STR | ANY => 4, _ => 8 } }

// --- forms of rules
pub trait Rule: Sized {
    fn open(plan: &mut Plan) -> Result<Self, String>;
    fn process(&mut self, batch: Batch, answer: &mut Answer);
}

pub trait Filter: Sized {
    fn open(plan: &mut Plan) -> Result<Self, String>;
    fn passes(&self, e: &Event) -> bool;
}
pub struct Filtering<F>(F);
impl<F: Filter> Rule for Filtering<F> {
    fn open(plan: &mut Plan) -> Result<Self, String> { F::open(plan).map(Filtering) }
    fn process(&mut self, batch: Batch, answer: &mut Answer) {
        for row in 0..batch.rows() {
            if answer.is_usable(row) && self.0.passes(&Event { batch, row }) { set(&mut answer.selected, row); }
        }
    }
}

pub trait Keyed: Sized {
    type State: Default;
    fn open(plan: &mut Plan) -> Result<Self, String>;
    fn counts(&self, _e: &Event) -> bool { true }                                          // it is as if other events were not there
    fn each(&mut self, e: &Event, key: &str, state: &mut Self::State, answer: &mut Answer);
    fn on_watermark(&mut self, watermark: i64, key: &str, state: &mut Self::State, answer: &mut Answer);
}
struct Key<S> { name: String, state: S, used: u64 }
/// At most `max_keys` (a parameter, 10,000 without it) are kept: a further one first closes the one unused for the longest.
pub struct ByKey<K: Keyed> { rule: K, key: Input, known: BTreeMap<String, usize>, keys: Vec<Option<Key<K::State>>>, free: Vec<usize>, by_use: BTreeMap<u64, usize>,
                             uses: u64, slots: Vec<Option<usize>>, max: usize }
impl<K: Keyed> ByKey<K> {
    fn touch(&mut self, code: u32, name: &str, answer: &mut Answer) -> usize {
        self.uses += 1;
        let found = self.known.get(name).copied();
        let k = match found {
            Some(k) => { let used = self.keys[k].as_ref().unwrap().used; self.by_use.remove(&used); k }
            None => {
                while self.known.len() >= self.max { let oldest = *self.by_use.values().next().unwrap(); self.close(oldest, answer); }
                let made = Some(Key { name: name.to_string(), state: K::State::default(), used: 0 });
                let k = match self.free.pop() { Some(k) => { self.keys[k] = made; k } None => { self.keys.push(made); self.keys.len() - 1 } };
                self.known.insert(name.to_string(), k);
                k
            }
        };
        self.keys[k].as_mut().unwrap().used = self.uses;
        self.by_use.insert(self.uses, k);
        self.slots[code as usize] = Some(k);
        k
    }
    fn close(&mut self, k: usize, answer: &mut Answer) {
        let mut key = self.keys[k].take().unwrap();
        self.rule.on_watermark(FOREVER, &key.name, &mut key.state, answer);
        for slot in &mut self.slots { if *slot == Some(k) { *slot = None; } }
        self.known.remove(&key.name);
        self.by_use.remove(&key.used);
        self.free.push(k);
    }
}
impl<K: Keyed> Rule for ByKey<K> {
    fn open(plan: &mut Plan) -> Result<Self, String> {
        let max = if plan.given("max_keys") { plan.i64("max_keys")? } else { 10_000 };
        if !(1..=1_000_000).contains(&max) { return Err("max_keys must be from 1 to 1000000".to_string()); }
        let (key, rule) = (plan.key_input(), K::open(plan)?);
        Ok(ByKey { rule, key, known: BTreeMap::new(), keys: Vec::new(), free: Vec::new(), by_use: BTreeMap::new(), uses: 0, slots: Vec::new(), max: max as usize })
    }
    fn process(&mut self, batch: Batch, answer: &mut Answer) {
        let keyed = batch.kind(self.key) != ANY;
        let codes = if keyed { batch.words(self.key) } else { 1 };
        let key = self.key;
        let name_of = |code| if keyed { batch.word(key, code) } else { "" };
        self.slots.clear();
        self.slots.resize(codes as usize, None);
        for row in 0..batch.rows() {
            let e = Event { batch, row };
            if !answer.is_usable(row) || !self.rule.counts(&e) { continue; }
            let code = if keyed { e.code(key) } else { 0 };
            let k = match self.slots[code as usize] { Some(k) => k, None => self.touch(code, name_of(code), answer) };
            let one = self.keys[k].as_mut().unwrap();
            self.rule.each(&e, &one.name, &mut one.state, answer);
        }
        for code in 0..codes {
            let watermark = if keyed { batch.key_watermark(code) } else { batch.watermark() };
            if let Some(&k) = self.known.get(name_of(code)) {
                if watermark == FOREVER { self.close(k, answer); continue; }
                let one = self.keys[k].as_mut().unwrap();
                self.rule.on_watermark(watermark, &one.name, &mut one.state, answer);
            }
        }
    }
}

/// Tumbling windows of event time: [start, start + length), a start being a whole multiple of the length since 1970.
pub trait Windowed: Sized {
    type Tally: Default;
    fn open(plan: &mut Plan) -> Result<Self, String>;
    fn length(&self) -> i64;                                                               // nanoseconds
    fn counts(&self, _e: &Event) -> bool { true }
    fn add(&mut self, e: &Event, tally: &mut Self::Tally);
    fn close(&mut self, key: &str, start: i64, end: i64, tally: &Self::Tally, answer: &mut Answer);
}
pub type InWindows<W> = ByKey<Windowing<W>>;
pub struct Windowing<W> { rule: W, time: Input }
pub struct Windows<T> { open: Vec<(i64, T)>, closed: i64 }
impl<T> Default for Windows<T> { fn default() -> Self { Windows { open: Vec::new(), closed: i64::MIN } } }
impl<W: Windowed> Keyed for Windowing<W> {
    type State = Windows<W::Tally>;
    fn open(plan: &mut Plan) -> Result<Self, String> {
        let (time, rule) = (plan.input("$time", TIME, 0), W::open(plan)?);
        if rule.length() < 1 { return Err("the window's length must be above 0".to_string()); }
        Ok(Windowing { rule, time })
    }
    fn counts(&self, e: &Event) -> bool { self.rule.counts(e) }
    fn each(&mut self, e: &Event, _key: &str, state: &mut Self::State, answer: &mut Answer) {
        let (t, length) = (e.i64(self.time), self.rule.length());
        if !(-(1 << 62)..=1 << 62).contains(&t) { answer.ignore(); return; }
        let start = t - t.rem_euclid(length);
        if start + length <= state.closed { answer.late(e); return; }
        let i = match state.open.binary_search_by_key(&start, |w| w.0) {
            Ok(i) => i,
            Err(i) => { state.open.insert(i, (start, W::Tally::default())); i }
        };
        self.rule.add(e, &mut state.open[i].1);
    }
    fn on_watermark(&mut self, watermark: i64, key: &str, state: &mut Self::State, answer: &mut Answer) {
        let length = self.rule.length();
        let n = state.open.iter().take_while(|w| w.0 + length <= watermark).count();
        for (start, tally) in state.open.drain(..n) { self.rule.close(key, start, start + length, &tally, answer); }
        state.closed = state.closed.max(watermark);
    }
}

// --- the ABI
struct Running<R> { rule: R, inputs: Vec<Field>, answer: Answer, columns: Vec<u32>, result: [u32; 8] }
pub struct Module<R>(UnsafeCell<Option<Running<R>>>);
unsafe impl<R> Sync for Module<R> {}
impl<R: Rule> Module<R> {
    pub const fn new() -> Self { Module(UnsafeCell::new(None)) }
    pub fn open(&self, params: u32) -> u32 {
        let mut plan = Plan { params, inputs: Vec::new(), outputs: Vec::new(), key_input: None, key: NONE, time: NONE };
        let made = R::open(&mut plan);
        let words = plan.words(made.as_ref().err().map_or("", |e| e)).leak().as_ptr() as u32;
        if let Ok(rule) = made {
            let columns = plan.outputs.iter().map(|o| Column { kind: if o.kind == ANY { STR } else { o.kind }, ..Column::default() }).collect();
            let answer = Answer { columns, rows: 0, selected: Vec::new(), late: Vec::new(), late_n: 0, ignored: 0, usable: None, batch: Batch(0), key: plan.key_input };
            unsafe { *self.0.get() = Some(Running { rule, inputs: plan.inputs, answer, columns: Vec::new(), result: [0; 8] }) };
        }
        words
    }
    pub fn process(&self, batch: u32) -> u32 {
        let Running { rule, inputs, answer, columns, result } = unsafe { (*self.0.get()).as_mut().unwrap() };
        answer.begin(Batch(batch), inputs);
        rule.process(Batch(batch), answer);
        let (rows, n) = (answer.rows, Batch(batch).rows());
        let given = |there: bool, address: u32| if there { address } else { 0 };
        columns.clear();
        for c in &answer.columns {
            let words = c.offsets.len().saturating_sub(1) as u32;
            columns.extend([c.kind, c.values.as_ptr() as u32, given(c.filled < rows, c.valid.as_ptr() as u32), words,
                            given(words > 0, c.offsets.as_ptr() as u32), given(words > 0, c.bytes.as_ptr() as u32)]);
        }
        *result = [given(n > 0, answer.selected.as_ptr() as u32), given(answer.late_n > 0, answer.late.as_ptr() as u32), rows,
                   given(rows > 0, columns.as_ptr() as u32), answer.ignored, 0, 0, 0];
        result.as_ptr() as u32
    }
}
struct Area(UnsafeCell<(usize, usize)>);
unsafe impl Sync for Area {}
static AREA: Area = Area(UnsafeCell::new((0, 0)));
#[no_mangle]
pub extern "C" fn tg_alloc(size: u32) -> u32 {
    let (at, room) = unsafe { &mut *AREA.0.get() };
    if *at == 0 || *room < size as usize {
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        if *at != 0 { unsafe { dealloc(*at as *mut u8, layout(*room)) }; }
        *at = unsafe { alloc(layout(size as usize)) } as usize;
        *room = size as usize;
    }
    *at as u32
}
#[no_mangle]
pub extern "C" fn tg_abi() -> u32 { 1 }

macro_rules! rule {
    ($rule:ty) => {
        static MODULE: Module<$rule> = Module::new();
        #[no_mangle]
        pub extern "C" fn tg_open(params: u32) -> u32 { MODULE.open(params) }
        #[no_mangle]
        pub extern "C" fn tg_process(batch: u32) -> u32 { MODULE.process(batch) }
    };
}
pub(crate) use rule;
