//! Threads that share work of a few microseconds. A thread stays awake for a while after its work, because waking it
//! would take longer than the work that a time step has to share. The thread that shares work never waits for another
//! to begin: a part that none has begun it does itself.

use anyhow::{Context, Result};
use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// How often a member looks for work before it sleeps: about 200 microseconds.
const AWAKE: usize = 1 << 13;
/// How often the crew looks whether a member is done before it yields to other threads between two looks: about 25
/// microseconds.
const PATIENT: usize = 1 << 10;
/// What a member is asked to do.
type Part<'a> = &'a (dyn Fn() + Sync);

/// The thread that made it, and `members` that help.
pub struct Crew {
    members: Vec<Member>,
    /// Where a test asks for it, members are waited for until they begin, and counted.
    #[cfg(test)]
    pub begun: Option<usize>,
}

struct Member {
    post: Arc<Post>,
    thread: Option<JoinHandle<()>>,
}

/// The states of a post. The crew offers work: IDLE to OFFERED. The member takes it: OFFERED to TAKEN. When done it
/// returns to IDLE or, after a panic, to FAILED. The crew can take back what is still OFFERED. At ENDED the member
/// stops.
const IDLE: u8 = 0;
const OFFERED: u8 = 1;
const TAKEN: u8 = 2;
const FAILED: u8 = 3;
const ENDED: u8 = 4;

/// Where a member finds its work. Aligned so that no two posts share a cache line.
#[repr(align(128))]
struct Post {
    state: AtomicU8,
    asleep: AtomicBool,
    /// Written by the crew while the state is IDLE, read by the member while it is TAKEN.
    part: UnsafeCell<Option<Part<'static>>>,
    /// The panic of the member's work, written before the state becomes FAILED.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: the state says which thread may access `part`, as noted there. The other fields are synchronised themselves.
unsafe impl Sync for Post {}

impl Crew {
    /// A crew of `threads` threads, the caller's among them. Fails if the system starts no more.
    pub fn new(threads: usize) -> Result<Crew> {
        let mut crew = Crew::alone();
        for number in 1..threads {
            let post = Arc::new(Post {
                state: AtomicU8::new(IDLE),
                asleep: AtomicBool::new(false),
                part: UnsafeCell::new(None),
                panic: Mutex::new(None),
            });
            let its = post.clone();
            let thread = thread::Builder::new().name(format!("crew {number}")).spawn(move || its.serve());
            crew.members.push(Member { post, thread: Some(thread.context("cannot start threads")?) });
        }
        Ok(crew)
    }

    /// A crew of the caller's thread alone.
    pub const fn alone() -> Crew {
        Crew {
            members: vec![],
            #[cfg(test)]
            begun: None,
        }
    }

    pub fn threads(&self) -> usize {
        1 + self.members.len()
    }

    /// Calls both, side by side if there is a second thread. If one panics, the panic is passed on as soon as neither
    /// runs. What has not begun by then is not called.
    pub fn join(&mut self, beside: impl FnOnce() + Send, here: impl FnOnce()) {
        let beside = Mutex::new(Some(beside));
        let take = || beside.lock().ok().and_then(|mut beside| beside.take());
        self.offer(1, &|| take().into_iter().for_each(|beside| beside()), here);
        take().into_iter().for_each(|beside| beside());
    }

    /// Calls `work` for each item, on at most `threads` threads. Which thread takes which item is not determined.
    pub fn each<T>(&mut self, threads: usize, items: impl Iterator<Item = T> + Send, work: impl Fn(T) + Sync) {
        let items = Mutex::new(items);
        let next = || items.lock().ok().and_then(|mut items| items.next());
        let work = || {
            while let Some(item) = next() {
                work(item);
            }
        };
        self.offer(threads.saturating_sub(1), &work, work);
    }

    /// Calls `here`, and beside it `part` on up to `helpers` members: on those that begin before `here` has ended.
    fn offer(&mut self, helpers: usize, part: Part, here: impl FnOnce()) {
        let offers = Offers { members: &self.members[..helpers.min(self.members.len())] };
        offers.make(part);
        #[cfg(test)]
        if let Some(begun) = &mut self.begun {
            *begun += offers.wait();
        }
        here();
        if let Some(panic) = offers.settle() {
            resume_unwind(panic);
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.members.iter_mut().for_each(end);
    }
}

fn end(member: &mut Member) {
    member.post.state.store(ENDED, Ordering::Release);
    if let Some(thread) = member.thread.take() {
        thread.thread().unpark();
        let _ = thread.join(); // a member catches all panics
    }
}

/// An offer to some members. If the caller's own part panics, the drop waits for the members that have taken theirs.
struct Offers<'a> {
    members: &'a [Member],
}

impl Offers<'_> {
    fn make(&self, part: Part) {
        for Member { post, thread } in self.members {
            // SAFETY: the state is IDLE, so the member does not read. It calls the part only between TAKEN and IDLE,
            // and the drop of `Offers` waits for that.
            unsafe { *post.part.get() = Some(std::mem::transmute::<Part<'_>, Part<'static>>(part)) };
            post.state.store(OFFERED, Ordering::SeqCst);
            if post.asleep.load(Ordering::SeqCst)
                && let Some(thread) = thread
            {
                thread.thread().unpark();
            }
        }
    }

    /// Waits until all members have begun; returns their number.
    #[cfg(test)]
    fn wait(&self) -> usize {
        for Member { post, .. } in self.members {
            while post.state.load(Ordering::Relaxed) == OFFERED {
                thread::yield_now();
            }
        }
        self.members.len()
    }

    /// Takes back what no member has taken, waits for the others, and returns the panic of one.
    fn settle(&self) -> Option<Box<dyn Any + Send>> {
        let mut panic = None;
        for Member { post, .. } in self.members {
            if post.state.compare_exchange(OFFERED, IDLE, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                continue;
            }
            let mut looks = 0;
            loop {
                match post.state.load(Ordering::Acquire) {
                    TAKEN if looks < PATIENT => spin_loop(),
                    TAKEN => thread::yield_now(),
                    FAILED => {
                        panic = post.panic.lock().ok().and_then(|mut panic| panic.take());
                        post.state.store(IDLE, Ordering::Relaxed);
                        break;
                    }
                    _ => break,
                }
                looks += 1;
            }
        }
        panic
    }
}

impl Drop for Offers<'_> {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Post {
    /// What a member does from start to end.
    fn serve(&self) {
        let mut looks = 0;
        loop {
            match self.state.load(Ordering::Relaxed) {
                OFFERED => {
                    if self.state.compare_exchange(OFFERED, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                        self.work();
                    }
                    looks = 0;
                }
                ENDED => return,
                _ if looks < AWAKE => {
                    looks += 1;
                    spin_loop();
                }
                _ => {
                    #[cfg(test)]
                    thread::sleep(std::time::Duration::from_millis(1)); // so that an offer can come just here
                    // The crew offers and then looks whether the member sleeps. The member says that it sleeps and then
                    // looks for an offer. All four are SeqCst, so that at least one of the two sees what the other has
                    // written.
                    self.asleep.store(true, Ordering::SeqCst);
                    if !matches!(self.state.load(Ordering::SeqCst), OFFERED | ENDED) {
                        thread::park();
                    }
                    self.asleep.store(false, Ordering::Relaxed);
                    looks = 0;
                }
            }
        }
    }

    fn work(&self) {
        // SAFETY: the state is TAKEN, so the crew does not write. It waits for the end of the call, so what the part
        // borrows lives.
        let part = unsafe { (*self.part.get()).expect("what is offered has been written") };
        let after = match catch_unwind(AssertUnwindSafe(part)) {
            Ok(()) => IDLE,
            Err(panic) => {
                *self.panic.lock().expect("no thread panics while it holds the lock") = Some(panic);
                FAILED
            }
        };
        self.state.store(after, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::AtomicUsize;
    use std::thread::{current, sleep};
    use std::time::Duration;

    /// Waits until a flag is set; a thread that may be asleep needs a moment.
    fn until(flag: &AtomicBool) {
        while !flag.load(Ordering::Acquire) {
            thread::yield_now();
        }
    }

    #[test]
    fn a_join_calls_both_side_by_side_and_ends_after_both() {
        let mut crew = Crew::new(2).unwrap();
        for round in 0..1000 {
            let (begun, ended, mut written) = (AtomicBool::new(false), AtomicBool::new(false), 0);
            let beside = || {
                begun.store(true, Ordering::Release);
                written = round;
                ended.store(true, Ordering::Release);
            };
            crew.join(beside, || until(&begun));
            assert!(ended.into_inner());
            assert_eq!(written, round);
            if round % 100 == 0 {
                sleep(Duration::from_millis(5)); // after which the member sleeps
            }
        }
    }

    /// Else this does not end.
    #[test]
    fn an_offer_that_comes_while_a_member_lies_down_wakes_it() {
        let mut crew = Crew::new(2).unwrap();
        for round in 0..200 {
            let begun = AtomicBool::new(false);
            crew.join(|| begun.store(true, Ordering::Release), || until(&begun));
            sleep(Duration::from_micros(10 * round));
        }
    }

    #[test]
    fn what_no_member_has_begun_with_is_done_by_the_caller() {
        for threads in [1, 2] {
            let mut crew = Crew::new(threads).unwrap();
            for member in &mut crew.members {
                end(member); // it takes no work any more
            }
            let mut by = None;
            crew.join(|| by = Some(current().id()), || ());
            assert_eq!(by, Some(current().id()));
        }
    }

    #[test]
    fn each_item_is_worked_on_once_by_no_more_threads_than_allowed() {
        for (crew, threads) in [(1, 1), (2, 2), (5, 3), (3, 5)] {
            let mut crew = Crew::new(crew).unwrap();
            crew.begun = Some(0);
            for _ in 0..100 {
                let counts: Vec<AtomicUsize> = (0..50).map(|_| AtomicUsize::new(0)).collect();
                let workers = Mutex::new(HashSet::new());
                crew.each(threads, counts.iter(), |count| {
                    count.fetch_add(1, Ordering::Relaxed);
                    workers.lock().unwrap().insert(current().id());
                });
                assert!(counts.into_iter().all(|count| count.into_inner() == 1));
                assert!(workers.into_inner().unwrap().len() <= threads.min(crew.threads()));
            }
            assert_eq!(crew.begun, Some(100 * (threads.min(crew.threads()) - 1)));
        }
    }

    #[test]
    fn a_panic_is_passed_on_when_all_have_ended_and_the_crew_goes_on() {
        let mut crew = Crew::new(2).unwrap();
        let begun = AtomicBool::new(false);
        let fails = || {
            begun.store(true, Ordering::Release);
            panic!("beside");
        };
        let panic = catch_unwind(AssertUnwindSafe(|| crew.join(fails, || until(&begun)))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"beside"));

        let (begun, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        let slow = || {
            begun.store(true, Ordering::Release);
            sleep(Duration::from_millis(20));
            ended.store(true, Ordering::Release);
        };
        let fails = || {
            until(&begun);
            panic!("here");
        };
        let panic = catch_unwind(AssertUnwindSafe(|| crew.join(slow, fails))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"here"));
        assert!(ended.load(Ordering::Acquire), "what the part borrows must outlive it");

        let mut done = false;
        crew.join(|| done = true, || ());
        assert!(done);
    }
}
