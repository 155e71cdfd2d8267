//! Cells: where counts live, one array per worker.
//!
//! A worker that has claimed a [`WorkerSlot`] is the only writer of its arrays, so an addition is a
//! plain load and store (relaxed atomics, no locked instruction). All other threads share slot 0
//! with atomic additions. Arrays of different workers are separate allocations, made at a worker's
//! first write.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

/// Most worker slots of a process; a thread that finds none free counts in the shared slot.
const MAX_SLOTS: usize = 512;

static SLOTS_IN_USE: Mutex<Vec<bool>> = Mutex::new(Vec::new());

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(0) };
}

/// Claims a slot of the process for this thread until dropped: the thread's counts become
/// uncontended. Worker threads call [`WorkerSlot::claim`] once at their start and keep the value.
/// Without it counting works, only slower.
#[derive(Debug)]
pub struct WorkerSlot {
    index: usize,
    /// Stays on its thread.
    _thread: PhantomData<*const ()>,
}

impl WorkerSlot {
    /// Claims the lowest free slot. A second claim on one thread gives an inert value.
    pub fn claim() -> Self {
        let taken = SLOT.get() != 0;
        let mut slots = SLOTS_IN_USE.lock();
        let free = slots.iter().position(|used| !used).unwrap_or(slots.len());
        if taken || free >= MAX_SLOTS {
            return Self {
                index: 0,
                _thread: PhantomData,
            };
        }
        match slots.get_mut(free) {
            Some(used) => *used = true,
            None => slots.push(true),
        }
        SLOT.set(free + 1);
        Self {
            index: free + 1,
            _thread: PhantomData,
        }
    }
}

impl Drop for WorkerSlot {
    fn drop(&mut self) {
        if let Some(index) = self.index.checked_sub(1) {
            SLOT.set(0);
            if let Some(used) = SLOTS_IN_USE.lock().get_mut(index) {
                *used = false;
            }
        }
    }
}

/// The slot to write to in something that has `slots` slots, and whether this thread is its only
/// writer.
pub(super) fn current_slot(slots: usize) -> (usize, bool) {
    let slot = SLOT.get();
    if slot != 0 && slot < slots {
        (slot, true)
    } else {
        (0, false)
    }
}

/// Adds to a cell, without a locked instruction when the thread is its only writer.
pub(super) fn add_to(cell: &AtomicU64, amount: u64, exclusive: bool) {
    if exclusive {
        cell.store(
            cell.load(Ordering::Relaxed).wrapping_add(amount),
            Ordering::Relaxed,
        );
    } else {
        cell.fetch_add(amount, Ordering::Relaxed);
    }
}

/// What a set of cells counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

#[derive(Debug)]
enum Names {
    One(Box<str>),
    Block(&'static [&'static str]),
}

/// The cells of one series or of a block of series. Gauges use two cells each: value and "was set".
#[derive(Debug)]
pub(super) struct Cells {
    names: Names,
    slots: Box<[OnceLock<Box<[AtomicU64]>>]>,
    /// Cells per worker: one per series, and for gauges one more, the mark.
    width: usize,
    /// What the sums were at the last reset. Subtracted on read, since another thread's cell cannot
    /// be set to zero.
    baseline: Mutex<Option<Box<[u64]>>>,
}

impl Cells {
    pub(super) fn one(kind: Kind, name: &str, slots: usize) -> Self {
        Self::new(kind, Names::One(Box::from(name)), slots)
    }

    pub(super) fn block(kind: Kind, names: &'static [&'static str], slots: usize) -> Self {
        Self::new(kind, Names::Block(names), slots)
    }

    fn new(kind: Kind, names: Names, slots: usize) -> Self {
        let slots = (0..slots.max(1)).map(|_| OnceLock::new()).collect();
        let mut cells = Self {
            names,
            slots,
            width: 0,
            baseline: Mutex::default(),
        };
        cells.width = if kind == Kind::Gauge {
            cells.len() * 2
        } else {
            cells.len()
        };
        cells
    }

    pub(super) fn len(&self) -> usize {
        match &self.names {
            Names::One(_) => 1,
            Names::Block(names) => names.len(),
        }
    }

    pub(super) fn name(&self, index: usize) -> &str {
        match &self.names {
            Names::One(name) => name,
            Names::Block(names) => names.get(index).copied().unwrap_or_default(),
        }
    }

    pub(super) fn position(&self, name: &str) -> Option<usize> {
        (0..self.len()).find(|index| self.name(*index) == name)
    }

    /// The cell to write and whether this thread owns it.
    fn cell(&self, index: usize) -> Option<(&AtomicU64, bool)> {
        let (slot, exclusive) = current_slot(self.slots.len());
        let array = self
            .slots
            .get(slot)?
            .get_or_init(|| (0..self.width).map(|_| AtomicU64::new(0)).collect());
        Some((array.get(index)?, exclusive))
    }

    fn add(&self, index: usize, amount: u64) {
        if let Some((cell, exclusive)) = self.cell(index) {
            add_to(cell, amount, exclusive);
        }
    }

    fn mark(&self, index: usize) {
        if let Some((cell, _)) = self.cell(self.len() + index)
            && cell.load(Ordering::Relaxed) == 0
        {
            cell.store(1, Ordering::Relaxed);
        }
    }

    fn store_shared(&self, index: usize, value: u64) {
        let Some(slot) = self.slots.first() else {
            return;
        };
        let array = slot.get_or_init(|| (0..self.width).map(|_| AtomicU64::new(0)).collect());
        if let Some(cell) = array.get(index) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    fn raw(&self, index: usize) -> u64 {
        let cells = self.slots.iter().filter_map(|slot| slot.get()?.get(index));
        cells.fold(0u64, |sum, cell| {
            sum.wrapping_add(cell.load(Ordering::Relaxed))
        })
    }

    /// The sum since the last reset.
    pub(super) fn value(&self, index: usize) -> u64 {
        let before = self
            .baseline
            .lock()
            .as_ref()
            .and_then(|values| values.get(index).copied())
            .unwrap_or(0);
        self.raw(index).wrapping_sub(before)
    }

    /// Whether the series was ever written.
    pub(super) fn used(&self, index: usize) -> bool {
        self.raw(index) != 0 || self.raw(self.len() + index) != 0
    }

    pub(super) fn reset(&self) {
        let values = (0..self.len()).map(|index| self.raw(index)).collect();
        *self.baseline.lock() = Some(values);
    }
}

/// A number that only grows.
#[derive(Debug, Clone)]
pub struct Counter {
    cells: Arc<Cells>,
    index: u32,
}

impl Counter {
    pub(super) fn new(cells: Arc<Cells>, index: usize) -> Self {
        Self {
            cells,
            index: u32::try_from(index).unwrap_or(u32::MAX),
        }
    }

    /// Adds one.
    pub fn inc(&self) {
        self.cells.add(self.index as usize, 1);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.cells.add(self.index as usize, amount);
    }

    /// The sum of all workers since the last reset.
    pub fn value(&self) -> u64 {
        self.cells.value(self.index as usize)
    }
}

/// A number that goes up and down. Use either `inc`/`dec`/`add`/`sub` (from any worker) or `set` on
/// one gauge, not both.
#[derive(Debug, Clone)]
pub struct Gauge {
    cells: Arc<Cells>,
    index: u32,
}

impl Gauge {
    pub(super) fn new(cells: Arc<Cells>, index: usize) -> Self {
        Self {
            cells,
            index: u32::try_from(index).unwrap_or(u32::MAX),
        }
    }

    pub fn inc(&self) {
        self.add(1);
    }

    pub fn dec(&self) {
        self.sub(1);
    }

    pub fn add(&self, amount: u64) {
        self.cells.add(self.index as usize, amount);
        self.cells.mark(self.index as usize);
    }

    pub fn sub(&self, amount: u64) {
        self.cells.add(self.index as usize, amount.wrapping_neg());
        self.cells.mark(self.index as usize);
    }

    pub fn set(&self, value: u64) {
        self.cells.store_shared(self.index as usize, value);
        self.cells.mark(self.index as usize);
    }

    /// The sum of all workers; 0 while a decrement is seen before its increment.
    pub fn value(&self) -> u64 {
        gauge_value(&self.cells, self.index as usize)
    }
}

/// The sum as a number that is never negative.
pub(super) fn gauge_value(cells: &Cells, index: usize) -> u64 {
    let sum = cells.raw(index);
    if sum > i64::MAX as u64 { 0 } else { sum }
}

/// The counters of a static list of names. Indexes beyond the list are ignored.
#[derive(Debug, Clone)]
pub struct Counters(Arc<Cells>);

impl Counters {
    pub(super) fn new(cells: Arc<Cells>) -> Self {
        Self(cells)
    }

    pub fn inc(&self, index: usize) {
        self.add(index, 1);
    }

    pub fn add(&self, index: usize, amount: u64) {
        if index < self.0.len() {
            self.0.add(index, amount);
        }
    }

    pub fn value(&self, index: usize) -> u64 {
        if index < self.0.len() {
            self.0.value(index)
        } else {
            0
        }
    }

    /// A handle of one member.
    pub fn counter(&self, index: usize) -> Option<Counter> {
        (index < self.0.len()).then(|| Counter::new(self.0.clone(), index))
    }
}

/// The gauges of a static list of names. Indexes beyond the list are ignored.
#[derive(Debug, Clone)]
pub struct Gauges(Arc<Cells>);

impl Gauges {
    pub(super) fn new(cells: Arc<Cells>) -> Self {
        Self(cells)
    }

    pub fn inc(&self, index: usize) {
        self.add(index, 1);
    }

    pub fn dec(&self, index: usize) {
        self.add(index, 1u64.wrapping_neg());
    }

    /// Adds; subtract with `amount.wrapping_neg()`.
    pub fn add(&self, index: usize, amount: u64) {
        if index < self.0.len() {
            self.0.add(index, amount);
            self.0.mark(index);
        }
    }

    pub fn set(&self, index: usize, value: u64) {
        if index < self.0.len() {
            self.0.store_shared(index, value);
            self.0.mark(index);
        }
    }

    pub fn value(&self, index: usize) -> u64 {
        if index < self.0.len() {
            gauge_value(&self.0, index)
        } else {
            0
        }
    }

    /// A handle of one member.
    pub fn gauge(&self, index: usize) -> Option<Gauge> {
        (index < self.0.len()).then(|| Gauge::new(self.0.clone(), index))
    }
}

/// A text that is shown as a statistic, for example `control_plane.identifier`.
#[derive(Debug, Clone, Default)]
pub struct TextReadout(Arc<Mutex<String>>);

impl TextReadout {
    pub fn set(&self, text: impl Into<String>) {
        *self.0.lock() = text.into();
    }

    pub fn value(&self) -> String {
        self.0.lock().clone()
    }
}
