//! Event files for TensorBoard. tensorboard-rs gives the record format and the event types; the file is ours, so that a
//! full disk is an error rather than a panic, two sessions never share a name, and a resumed run shows no step twice.

mod look;
mod summaries;

pub use look::Look;

use anyhow::{Context, Result};
use protobuf::Message;
use std::fs::{self, File, OpenOptions};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use summaries::Summaries;
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_rs::record_writer::RecordWriter;

/// The event file of one session of a run.
pub struct Events {
    path: PathBuf,
    file: RecordWriter<BufWriter<File>>,
}

impl Events {
    /// A new event file in a directory. Of a resumed run, readers drop what older files hold from step `from` on.
    pub fn new(directory: &Path, from: Option<u64>) -> Result<Events> {
        let (path, file) = create(directory)?;
        let mut events = Events { path, file: RecordWriter::new(BufWriter::new(file)) };
        let mut version = Event::new();
        version.set_file_version("brain.Event:2".to_string());
        events.write(version)?;
        if let Some(step) = from {
            let (mut start, mut log) = (Event::new(), SessionLog::new());
            log.set_status(SessionLog_SessionStatus::START);
            start.set_step(step as i64);
            start.set_session_log(log);
            events.write(start)?;
        }
        events.flush()?;
        Ok(events)
    }

    /// Scalars of one step, under `group/name`.
    pub fn scalars<'a>(
        &mut self,
        group: &str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
        step: u64,
    ) -> Result<()> {
        let mut summaries = Summaries::default();
        for (name, value) in values {
            summaries.scalar(&format!("{group}/{name}"), value);
        }
        self.add(summaries, step)
    }

    /// Markdown under a tag.
    pub fn text(&mut self, tag: &str, text: &str, step: u64) -> Result<()> {
        let mut summaries = Summaries::default();
        summaries.text(tag, text);
        self.add(summaries, step)
    }

    /// What distinguishes this run from others, for the HPARAMS tab.
    pub fn parameters(&mut self, recipe: &serde_json::Value) -> Result<()> {
        let mut summaries = Summaries::default();
        summaries.parameters(recipe, seconds());
        self.add(summaries, 0)
    }

    /// That the run came to its end, for the HPARAMS tab, which keeps the first end that it reads: where a run is
    /// stopped, nothing is said.
    pub fn finished(&mut self) -> Result<()> {
        let mut summaries = Summaries::default();
        summaries.finished(seconds());
        self.add(summaries, 0)
    }

    /// Values of tensors by name, under `group/name`.
    pub fn histograms<'a>(
        &mut self,
        group: &str,
        tensors: impl Iterator<Item = (&'a str, &'a [f32])>,
        step: u64,
    ) -> Result<()> {
        let mut summaries = Summaries::default();
        for (name, values) in tensors {
            summaries.histogram(&format!("{group}/{name}"), values);
        }
        self.add(summaries, step)
    }

    /// What the machine does with one sequence: pictures, and the means of what its heads ask for.
    pub fn look(&mut self, look: &Look, step: u64) -> Result<()> {
        let mut summaries = Summaries::default();
        look.pictures().iter().for_each(|picture| summaries.picture(picture));
        for (head, means) in look.heads() {
            for (name, value) in means {
                summaries.scalar(&format!("heads/{head}/{name}"), value);
            }
        }
        self.add(summaries, step)
    }

    fn add(&mut self, summaries: Summaries, step: u64) -> Result<()> {
        let mut event = Event::new();
        event.set_step(step as i64);
        event.set_summary(summaries.into());
        self.write(event)?;
        self.flush()
    }

    fn write(&mut self, mut event: Event) -> Result<()> {
        event.set_wall_time(seconds());
        let bytes = event.write_to_bytes().context("an event cannot be written as protobuf")?;
        self.file.write(&bytes).with_context(|| format!("cannot write `{}`", self.path.display()))
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush().with_context(|| format!("cannot write `{}`", self.path.display()))
    }
}

/// A file of its own. Readers take files in the order of their names: by the second, then by a number. Where the clock
/// has been set back, the second is that of the last file.
fn create(directory: &Path) -> Result<(PathBuf, File)> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let names = || fs::read_dir(directory).into_iter().flatten().flatten().map(|file| file.file_name());
    let place_of = |name: &str| {
        let mut parts = name.strip_prefix(PREFIX)?.split('.');
        Some((parts.next()?.parse::<u64>().ok()?, parts.next()?.parse::<u64>().ok()?))
    };
    let last = names().filter_map(|name| place_of(&name.to_string_lossy())).max();
    let now = seconds() as u64;
    let (second, number) = match last {
        Some((second, number)) if second >= now => (second, number + 1),
        _ => (now, 0),
    };
    let name = format!("{PREFIX}{second:010}.{number:0DIGITS$}.{}.{}", host.trim(), std::process::id());
    let path = directory.join(name);
    let file = OpenOptions::new().create_new(true).write(true).open(&path);
    let file = file.with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok((path, file))
}

const PREFIX: &str = "events.out.tfevents.";
/// Of the number of a file within its second.
const DIGITS: usize = 6;

/// Since 1970.
fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
