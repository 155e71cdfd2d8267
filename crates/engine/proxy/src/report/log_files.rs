//! Access-log files: lines go to a bounded queue, and a thread of their own writes them, so no
//! worker ever waits for a disk or a pipe.
//!
//! `/dev/stdout` and `/dev/stderr` are the process's own. When a queue is full the line is dropped and counted (Envoy does the same with its
//! flush buffer); `flush` waits until everything queued is written, for the end of the process and
//! for tests.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io::{self, Write},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use parking_lot::Mutex;
use telemetry::stats::Counter;

/// Lines that may wait for one file.
const QUEUE: usize = 4096;

pub struct LogFiles {
    files: Mutex<HashMap<Arc<str>, SyncSender<Message>>>,
    dropped: Counter,
}

enum Message {
    Line(String),
    Flush(SyncSender<()>),
}

impl LogFiles {
    /// `dropped` counts lines that are lost, because a queue is full or a file cannot be opened.
    pub fn new(dropped: Counter) -> Self {
        Self {
            files: Mutex::default(),
            dropped,
        }
    }

    /// Queues a line (which ends with its own newline) for the file at `path`.
    pub fn write(&self, path: &Arc<str>, line: String) {
        let sender = self.sender(path);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            sender.try_send(Message::Line(line))
        {
            self.dropped.inc();
        }
    }

    /// Waits until what is queued now is written, at most `limit` for each file.
    pub fn flush(&self, limit: Duration) {
        let senders: Vec<_> = self.files.lock().values().cloned().collect();
        for sender in senders {
            let (done, wait) = sync_channel(1);
            if sender.try_send(Message::Flush(done)).is_ok() {
                // A file that cannot be written in time loses its tail; the process must end all
                // the same.
                let _ = wait.recv_timeout(limit);
            }
        }
    }

    fn sender(&self, path: &Arc<str>) -> SyncSender<Message> {
        let mut files = self.files.lock();
        if let Some(sender) = files.get(path) {
            return sender.clone();
        }
        let (sender, receiver) = sync_channel(QUEUE);
        let (name, dropped) = (path.clone(), self.dropped.clone());
        // task: writes one access log; ends when the reporter drops its queue
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || serve(&name, &receiver, &dropped));
        if let Err(error) = thread {
            tracing::error!(%path, %error, "no thread for an access log");
        }
        files.insert(path.clone(), sender.clone());
        sender
    }
}

fn open(path: &str) -> io::Result<Box<dyn Write>> {
    Ok(match path {
        "/dev/stdout" => Box::new(io::stdout()),
        "/dev/stderr" => Box::new(io::stderr()),
        path => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
    })
}

/// Writes until the queue is dropped. A file that cannot be opened or written is opened again with
/// the next lines; those that came meanwhile are lost, and counted.
fn serve(path: &str, messages: &Receiver<Message>, dropped: &Counter) {
    let mut file = None;
    let mut has_complained = false;
    let mut batch = Vec::with_capacity(8192);
    while let Ok(first) = messages.recv() {
        let mut waiting = Vec::new();
        let mut lines = take(first, &mut batch, &mut waiting);
        // One write for all that is there already.
        while batch.len() < 65_536 {
            match messages.try_recv() {
                Ok(next) => lines += take(next, &mut batch, &mut waiting),
                Err(_) => break,
            }
        }
        match write(path, &mut file, &batch) {
            Ok(()) => has_complained = false,
            Err(error) => {
                file = None;
                dropped.add(lines);
                if !std::mem::replace(&mut has_complained, true) {
                    tracing::error!(path, %error, "cannot write an access log; lines are dropped until it can be opened again");
                }
            }
        }
        batch.clear();
        for done in waiting {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }
}

fn write(path: &str, file: &mut Option<Box<dyn Write>>, batch: &[u8]) -> io::Result<()> {
    let file = match file {
        Some(file) => file,
        None => file.insert(open(path)?),
    };
    file.write_all(batch)?;
    file.flush()
}

/// The number of lines in the message.
fn take(message: Message, batch: &mut Vec<u8>, waiting: &mut Vec<SyncSender<()>>) -> u64 {
    match message {
        Message::Line(line) => {
            batch.extend_from_slice(line.as_bytes());
            1
        }
        Message::Flush(done) => {
            waiting.push(done);
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use telemetry::stats::{Options, Store};

    use super::*;

    fn files() -> (LogFiles, Counter) {
        let dropped = Store::new(Options::default()).counter("dropped");
        (LogFiles::new(dropped.clone()), dropped)
    }

    #[test]
    fn lines_are_in_the_file_after_a_flush_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<str> = folder.path().join("log").to_str().unwrap().into();
        let (files, dropped) = files();
        for number in 0..1000 {
            files.write(&path, format!("{number}\n"));
        }
        files.flush(Duration::from_secs(5));
        let text = std::fs::read_to_string(&*path).unwrap();
        assert_eq!(text.lines().count(), 1000);
        assert_eq!(text.lines().last(), Some("999"));
        assert_eq!(dropped.value(), 0);
    }

    #[test]
    fn a_file_that_could_not_be_opened_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("later");
        let path: Arc<str> = below.join("log").to_str().unwrap().into();
        let (files, dropped) = files();
        files.write(&path, "lost\n".to_owned());
        files.flush(Duration::from_secs(5));
        assert_eq!(dropped.value(), 1);
        std::fs::create_dir(&below).unwrap();
        files.write(&path, "kept\n".to_owned());
        files.flush(Duration::from_secs(5));
        assert_eq!(std::fs::read_to_string(&*path).unwrap(), "kept\n");
        assert_eq!(dropped.value(), 1);
    }

    #[test]
    fn lines_for_a_file_that_cannot_be_opened_are_counted_as_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<str> = folder.path().to_str().unwrap().into();
        let (files, dropped) = files();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        // The first lines may still be queued before the thread knows.
        while dropped.value() == 0 {
            files.write(&path, "lost\n".to_owned());
            assert!(std::time::Instant::now() < deadline, "nothing was counted");
            std::thread::yield_now();
        }
    }
}
