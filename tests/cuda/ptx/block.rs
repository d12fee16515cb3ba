//! A launch, block by block: each thread runs until it waits for others.

use super::program::{Instruction, Kind, Program, SHARED, Space};
use super::races::{Access, Clocks, Race, Words};
use ntm::fused::cuda::Grid;
use std::collections::BTreeMap;

const LANES: usize = 32;

#[derive(Clone, Copy, PartialEq)]
enum State {
    Ready,
    /// At a shuffle or a barrier of its warp.
    AtWarp,
    /// At a barrier of a number, with so many threads.
    AtBarrier(u32, usize),
    Done,
}

#[derive(Clone)]
struct Thread {
    state: State,
    /// The instruction that is next, or that it waits at.
    at: usize,
    registers: Vec<u64>,
    /// Copies on their way: to shared memory, from global memory, bytes.
    copies: Vec<(u64, u64, usize)>,
}

/// What threads read and write, and in what order.
struct Memory<'a> {
    program: &'a Program,
    parameters: &'a [u8],
    shared: Vec<u32>,
    shared_words: Words,
    global_words: &'a mut Words,
    clocks: Clocks,
    block: usize,
}

/// Runs a kernel. `left_out` is an instruction where nobody waits. An error says what is wrong, and where.
///
/// # Safety
///
/// The addresses in the parameters are what the kernel takes them for.
pub unsafe fn launch(program: &Program, grid: Grid, parameters: &[u8], left_out: Option<usize>) -> Result<(), String> {
    let Grid { blocks, threads, shared } = grid;
    let mut global_words = Words::default();
    for block in 0..blocks {
        let memory = Memory {
            program,
            parameters,
            shared: vec![u32::MAX; shared / 4], // NaN
            shared_words: Words::default(),
            global_words: &mut global_words,
            clocks: Clocks::new(threads),
            block,
        };
        let mut registers = program.registers.clone();
        let mut thread = |number: usize| {
            registers[1..5].copy_from_slice(&[number, block, threads, blocks].map(|n| n as u64));
            Thread { state: State::Ready, at: 0, registers: registers.clone(), copies: vec![] }
        };
        let threads = (0..threads).map(&mut thread).collect();
        // SAFETY: the caller's.
        unsafe { Block { program, left_out, memory, threads }.run()? };
    }
    Ok(())
}

struct Block<'a> {
    program: &'a Program,
    left_out: Option<usize>,
    memory: Memory<'a>,
    threads: Vec<Thread>,
}

impl Block<'_> {
    unsafe fn run(mut self) -> Result<(), String> {
        while self.threads.iter().any(|thread| thread.state == State::Ready) {
            for number in 0..self.threads.len() {
                let thread = &mut self.threads[number];
                while thread.state == State::Ready {
                    if self.left_out == Some(thread.at) {
                        thread.at += 1;
                    }
                    let instruction = &self.program.code[thread.at];
                    // SAFETY: the caller's.
                    let done = unsafe { step(thread, number, instruction, &mut self.memory) };
                    done.map_err(|error| {
                        let place = self.program.place(thread.at);
                        format!("{place}: thread {number} of block {}: {error}", self.memory.block)
                    })?;
                }
            }
            self.meet_warps()?;
            self.meet_barriers();
        }
        match self.threads.iter().position(|thread| thread.state != State::Done) {
            Some(number) => {
                let place = self.program.place(self.threads[number].at);
                Err(format!("{place}: thread {number} of block {} waits for ever", self.memory.block))
            }
            None => Ok(()),
        }
    }

    /// Lets warps go on whose lanes all wait at the same instruction.
    fn meet_warps(&mut self) -> Result<(), String> {
        for warp in 0..self.threads.len() / LANES {
            let lanes = &mut self.threads[warp * LANES..][..LANES];
            let at = lanes[0].at;
            if !lanes.iter().all(|lane| lane.state == State::AtWarp && lane.at == at) {
                continue;
            }
            let instruction = &self.program.code[at];
            if matches!(instruction.kind, Kind::Shuffle) {
                let [value, apart, last, mask] = [0, 1, 2, 3].map(|i| instruction.from[i] as usize);
                let values: Vec<u64> = lanes.iter().map(|lane| lane.registers[value]).collect();
                for (number, lane) in lanes.iter_mut().enumerate() {
                    if lane.registers[last] as u32 != 31 || lane.registers[mask] as u32 != u32::MAX {
                        return Err(format!("{}: a shuffle that is not of all lanes", self.program.place(at)));
                    }
                    let from = number ^ lane.registers[apart] as usize;
                    lane.registers[instruction.to[0] as usize] = values[from];
                    lane.registers[instruction.to[1] as usize] = 1;
                }
            } else {
                let met: Vec<usize> = (warp * LANES..(warp + 1) * LANES).collect();
                self.memory.clocks.meet(&met);
            }
            lanes.iter_mut().for_each(Thread::go_on);
        }
        Ok(())
    }

    /// Lets threads go on of which as many wait at a barrier as it is for.
    fn meet_barriers(&mut self) {
        let mut waiting: BTreeMap<(u32, usize), Vec<usize>> = BTreeMap::new();
        for (number, thread) in self.threads.iter().enumerate() {
            if let State::AtBarrier(barrier, size) = thread.state {
                waiting.entry((barrier, size)).or_default().push(number);
            }
        }
        for ((_, size), met) in waiting {
            if met.len() == size {
                self.memory.clocks.meet(&met);
                met.iter().for_each(|&number| self.threads[number].go_on());
            }
        }
    }
}

impl Thread {
    fn go_on(&mut self) {
        self.state = State::Ready;
        self.at += 1;
    }

    fn get(&self, register: u16) -> u64 {
        self.registers[register as usize]
    }
}

/// Runs a thread's next instruction.
unsafe fn step(
    thread: &mut Thread,
    number: usize,
    instruction: &Instruction,
    memory: &mut Memory,
) -> Result<(), String> {
    let Instruction { kind, guard, to, from, offset, .. } = instruction;
    if guard.is_some_and(|(predicate, wanted)| (thread.get(predicate) != 0) != wanted) {
        thread.at += 1;
        return Ok(());
    }
    let me = (number, thread.at);
    let place = thread.get(from[0]).wrapping_add_signed(*offset);
    match *kind {
        Kind::Compute(operation) => {
            thread.registers[to[0] as usize] = operation(thread.get(from[0]), thread.get(from[1]), thread.get(from[2]));
        }
        Kind::Load(space, size, count) => {
            aligned(place, size * count)?;
            for (k, to) in to[..count].iter().enumerate() {
                let mut value = 0;
                for byte in (0..size).step_by(4) {
                    // SAFETY: the caller's.
                    let word = unsafe { memory.read(space, place + (k * size + byte) as u64, me)? };
                    value |= (word as u64) << (8 * byte);
                }
                thread.registers[*to as usize] = value;
            }
        }
        Kind::Store(space, size, count) => {
            aligned(place, size * count)?;
            for k in 0..count {
                let value = thread.get(from[1 + k]);
                for byte in (0..size).step_by(4) {
                    let (place, word) = (place + (k * size + byte) as u64, (value >> (8 * byte)) as u32);
                    // SAFETY: the caller's.
                    unsafe { memory.write(space, place, word, me)? };
                }
            }
        }
        Kind::Copy(bytes) => {
            let (to, from) = (place as u32 as u64, thread.get(from[1]));
            aligned(to, bytes)?;
            aligned(from, bytes)?;
            for byte in (0..bytes as u64).step_by(4) {
                memory.check(Space::Global, from + byte, me, Access::CopyFrom)?;
                memory.check(Space::Shared, to + byte, me, Access::CopyTo)?;
            }
            thread.copies.push((to, from, bytes));
        }
        Kind::Arrived => {
            for (to, from, bytes) in thread.copies.drain(..) {
                for byte in (0..bytes as u64).step_by(4) {
                    // SAFETY: the caller's.
                    let value = unsafe { memory.read(Space::Global, from + byte, me)? };
                    memory.global_words.at(from + byte).has_been_copied();
                    memory.shared_words.at(to + byte).arrived(&memory.clocks);
                    memory.shared[((to + byte - SHARED) / 4) as usize] = value;
                }
            }
        }
        Kind::Shuffle | Kind::WarpBarrier => {
            thread.state = State::AtWarp;
            return Ok(());
        }
        Kind::Barrier => {
            let size = thread.get(from[1]) as u32 as usize;
            if !size.is_multiple_of(LANES) {
                return Err(format!("a barrier of {size} threads"));
            }
            let (barrier, all) = (thread.get(from[0]) as u32, thread.get(3) as usize);
            if barrier > 15 {
                return Err(format!("barrier {barrier}, of 16"));
            }
            thread.state = State::AtBarrier(barrier, if size == 0 { all } else { size });
            return Ok(());
        }
        Kind::Branch(label) => {
            thread.at = label;
            return Ok(());
        }
        Kind::Return => {
            thread.state = State::Done;
            return Ok(());
        }
    }
    thread.at += 1;
    Ok(())
}

fn aligned(address: u64, bytes: usize) -> Result<(), String> {
    if address.is_multiple_of(bytes as u64) { Ok(()) } else { Err(format!("{bytes} bytes at address {address:#x}")) }
}

impl Memory<'_> {
    /// Notes an access, or says what is wrong with it.
    fn check(&mut self, space: Space, address: u64, me: (usize, usize), access: Access) -> Result<(), String> {
        let words = match space {
            Space::Parameter => return Ok(()),
            Space::Shared => {
                if address < SHARED || address >= SHARED + 4 * self.shared.len() as u64 {
                    let within = address.wrapping_sub(SHARED) as i64;
                    return Err(format!("byte {within} of shared memory of {} bytes", 4 * self.shared.len()));
                }
                &mut self.shared_words
            }
            Space::Global => &mut *self.global_words,
        };
        words.at(address).access(access, self.block, me, &self.clocks).map_err(|race| {
            let what = if access.reads() { "reads" } else { "writes" };
            let other = match race {
                Race::With(past) => format!("thread {} at {}", past.thread, self.program.place(past.instruction)),
                Race::Block => "another block".to_string(),
                Race::Copy => "a copy that has not arrived".to_string(),
            };
            format!("{what} {space:?} memory at {address:#x} in no order with {other}")
        })
    }

    unsafe fn read(&mut self, space: Space, address: u64, me: (usize, usize)) -> Result<u32, String> {
        self.check(space, address, me, Access::Read)?;
        Ok(match space {
            Space::Parameter => {
                let bytes = &self.parameters[address as usize..][..4];
                u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
            }
            Space::Shared => self.shared[((address - SHARED) / 4) as usize],
            // SAFETY: the caller's, and aligned.
            Space::Global => unsafe { (address as *const u32).read() },
        })
    }

    unsafe fn write(&mut self, space: Space, address: u64, value: u32, me: (usize, usize)) -> Result<(), String> {
        self.check(space, address, me, Access::Write)?;
        match space {
            Space::Parameter => return Err("writes a parameter".to_string()),
            Space::Shared => self.shared[((address - SHARED) / 4) as usize] = value,
            // SAFETY: the caller's, and aligned.
            Space::Global => unsafe { (address as *mut u32).write(value) },
        }
        Ok(())
    }
}
