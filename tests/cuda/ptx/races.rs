//! Which accesses of memory are in no order: two threads at one word, of which one writes, with no barrier between them.
//! Each thread counts the barriers it has met, and a barrier tells its threads how far all of them are (vector clocks,
//! as in Flanagan and Freund's FastTrack, 2009). Blocks of a launch are in no order.

use std::collections::HashMap;

/// How far the threads of a block are, to the knowledge of each.
pub struct Clocks {
    threads: usize,
    known: Vec<u32>, // (threads, threads)
}

impl Clocks {
    pub fn new(threads: usize) -> Clocks {
        let mut clocks = Clocks { threads, known: vec![0; threads * threads] };
        (0..threads).for_each(|thread| clocks.known[thread * threads + thread] = 1);
        clocks
    }

    /// A barrier of these threads.
    pub fn meet(&mut self, met: &[usize]) {
        let threads = self.threads;
        let most = |other: usize| met.iter().map(|thread| self.known[thread * threads + other]).max().unwrap_or(0);
        let all: Vec<u32> = (0..threads).map(most).collect();
        for &thread in met {
            self.known[thread * threads..][..threads].copy_from_slice(&all);
            self.known[thread * threads + thread] += 1;
        }
    }

    fn now(&self, thread: usize) -> u32 {
        self.known[thread * self.threads + thread]
    }

    /// Whether what a thread did is before what another one does now.
    fn before(&self, past: &Past, now: usize) -> bool {
        self.known[now * self.threads + past.thread] >= past.clock
    }
}

/// A thread's access, by the instruction that made it.
#[derive(Clone, Copy)]
pub struct Past {
    pub thread: usize,
    pub instruction: usize,
    clock: u32,
}

/// The accesses of a word since they were last in order.
#[derive(Default)]
pub struct Word {
    block: usize,
    written: Option<Past>,
    read: Vec<Past>,
    /// By a block before this one.
    written_before: bool,
    read_before: bool,
    /// Whether a copy to it is on its way, and how many from it.
    copying: bool,
    copied: usize,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Access {
    Read,
    Write,
    /// The begin of a copy to it, and of one from it.
    CopyTo,
    CopyFrom,
}

impl Access {
    pub fn reads(self) -> bool {
        matches!(self, Access::Read | Access::CopyFrom)
    }
}

/// What an access is in no order with.
pub enum Race {
    With(Past),
    /// One of a block before.
    Block,
    /// A copy that has not arrived.
    Copy,
}

impl Word {
    /// Notes an access, of a thread at an instruction.
    pub fn access(
        &mut self,
        access: Access,
        block: usize,
        (thread, instruction): (usize, usize),
        clocks: &Clocks,
    ) -> Result<(), Race> {
        if self.block != block {
            self.written_before |= self.written.take().is_some();
            self.read_before |= !self.read.is_empty();
            self.read.clear();
            self.block = block;
        }
        let reads = access.reads();
        if self.copying || (!reads && self.copied > 0) {
            return Err(Race::Copy);
        }
        if self.written_before || (!reads && self.read_before) {
            return Err(Race::Block);
        }
        let read: &[Past] = if reads { &[] } else { &self.read };
        if let Some(other) = self.written.iter().chain(read).find(|past| !clocks.before(past, thread)) {
            return Err(Race::With(*other));
        }
        let now = Past { thread, instruction, clock: clocks.now(thread) };
        self.copied += (access == Access::CopyFrom) as usize;
        if reads {
            match self.read.iter_mut().find(|past| past.thread == thread) {
                Some(last) => *last = now,
                None => self.read.push(now),
            }
        } else {
            self.read.clear();
            self.written = Some(now);
            self.copying = access == Access::CopyTo;
        }
        Ok(())
    }

    /// A copy from it has arrived.
    pub fn has_been_copied(&mut self) {
        self.copied -= 1;
    }

    /// The copy to it that a thread began has arrived.
    pub fn arrived(&mut self, clocks: &Clocks) {
        self.copying = false;
        self.written.iter_mut().for_each(|past| past.clock = clocks.now(past.thread));
    }
}

/// The words of an address space, by their addresses over four.
#[derive(Default)]
pub struct Words(HashMap<u64, Vec<Word>>);

impl Words {
    pub fn at(&mut self, address: u64) -> &mut Word {
        const PAGE: u64 = 256;
        let page = self.0.entry(address / 4 / PAGE).or_insert_with(|| (0..PAGE).map(|_| Word::default()).collect());
        &mut page[(address / 4 % PAGE) as usize]
    }
}
