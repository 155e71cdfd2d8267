//! Containers' output: one file each, in the CRI's line format, bounded in size.
//!
//! `NS/POD/CONTAINER.log` holds lines `TIME stdout F text`; a file that reaches its size is renamed to `….log.1`, whose
//! predecessor goes. A restarted container begins a new file; the last one is kept as
//! `CONTAINER.previous.log`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::object;

/// Bytes of one file.
const MAX_FILE_BYTES: u64 = 10 << 20;
/// Longer lines are cut into parts, as the CRI's are.
const MAX_LINE_BYTES: usize = 16 << 10;

/// Bytes of the logs of earlier runs that are kept; the oldest pods' go first.
const MAX_OLD_BYTES: u64 = 64 << 20;
/// Pods of earlier runs whose logs are kept.
const MAX_OLD_PODS: usize = 200;

/// Where a container's output goes.
#[derive(Debug, Clone)]
pub struct LogFile {
    path: PathBuf,
    open: Arc<Mutex<Option<(File, u64)>>>,
}

/// The present file of a container.
pub fn path_of(logs: &Path, namespace: &str, pod: &str, container: &str) -> PathBuf {
    logs.join(namespace)
        .join(pod)
        .join(format!("{container}.log"))
}

/// The file of a container's last run.
pub fn previous_path_of(logs: &Path, namespace: &str, pod: &str, container: &str) -> PathBuf {
    logs.join(namespace)
        .join(pod)
        .join(format!("{container}.previous.log"))
}

/// Removes logs of earlier runs beyond a limit, those first that were written to longest ago. To be
/// called before the first pod runs.
pub fn remove_old(logs: &Path) {
    let folders = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let paths = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        paths.map(|entry| entry.path()).collect()
    };
    let mut pods: Vec<(SystemTime, u64, PathBuf)> = folders(logs)
        .iter()
        .flat_map(|namespace| folders(namespace))
        .map(|pod| {
            let files = fs::read_dir(&pod).into_iter().flatten().flatten();
            let known: Vec<fs::Metadata> = files.filter_map(|file| file.metadata().ok()).collect();
            let newest = known.iter().filter_map(|file| file.modified().ok()).max();
            let bytes = known.iter().map(fs::Metadata::len).sum();
            (newest.unwrap_or(SystemTime::UNIX_EPOCH), bytes, pod)
        })
        .collect();
    pods.sort_unstable_by(|one, other| other.cmp(one));
    let mut kept_bytes = 0_u64;
    for (place, (_, bytes, pod)) in pods.iter().enumerate() {
        kept_bytes = kept_bytes.saturating_add(*bytes);
        if (kept_bytes > MAX_OLD_BYTES || place >= MAX_OLD_PODS)
            && let Err(error) = fs::remove_dir_all(pod)
        {
            tracing::debug!(%error, pod = %pod.display(), "old logs stay");
        }
    }
    for namespace in folders(logs) {
        // Only an empty folder goes.
        let _ = fs::remove_dir(namespace);
    }
}

impl LogFile {
    /// Begins a new file; what was there becomes the previous one.
    pub fn begin(path: &Path, previous: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        if path.exists() {
            fs::rename(path, previous)?;
        }
        let log = Self {
            path: path.into(),
            open: Arc::default(),
        };
        *log.open.lock() = Some((log.new_file()?, 0));
        Ok(log)
    }

    fn new_file(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)
    }

    /// Writes one line, or a part of one.
    pub fn line(&self, stream: &str, tag: char, text: &[u8]) {
        let mut line = format!("{} {stream} {tag} ", object::timestamp()).into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        let mut open = self.open.lock();
        let size = line.len() as u64;
        if open
            .as_ref()
            .is_some_and(|(_, written)| written + size > MAX_FILE_BYTES)
        {
            let _ = fs::rename(&self.path, self.path.with_extension("log.1"));
            *open = self.new_file().ok().map(|file| (file, 0));
        }
        if let Some((file, written)) = open.as_mut()
            && file.write_all(&line).is_ok()
        {
            *written += size;
        }
    }

    /// Copies a container's pipe until its end.
    pub async fn copy(self, stream: &'static str, pipe: OwnedFd) {
        let Ok(mut pipe) = pipe::Receiver::from_owned_fd(pipe) else {
            return;
        };
        let mut pending: Vec<u8> = Vec::new();
        let mut bytes = vec![0_u8; 8_192];
        loop {
            match pipe.read(&mut bytes).await {
                Ok(0) | Err(_) => break,
                Ok(length) => {
                    pending.extend_from_slice(bytes.get(..length).unwrap_or_default());
                    self.write_lines(stream, &mut pending);
                }
            }
        }
        if !pending.is_empty() {
            self.line(stream, 'F', &pending);
        }
    }

    fn write_lines(&self, stream: &str, pending: &mut Vec<u8>) {
        let mut start = 0;
        while let Some(rest) = pending.get(start..) {
            let (length, step, tag) = match rest.iter().position(|byte| *byte == b'\n') {
                Some(end) if end <= MAX_LINE_BYTES => (end, end + 1, 'F'),
                None if rest.len() < MAX_LINE_BYTES => break,
                _ => (MAX_LINE_BYTES, MAX_LINE_BYTES, 'P'),
            };
            self.line(stream, tag, rest.get(..length).unwrap_or_default());
            start += step;
        }
        pending.drain(..start);
    }
}

/// The time and the text of a stored line, and whether the line ends there.
pub fn parse_line(line: &str) -> Option<(&str, bool, &str)> {
    let mut parts = line.splitn(4, ' ');
    let time = parts.next()?;
    let _stream = parts.next()?;
    let whole = parts.next()? == "F";
    Some((time, whole, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_earlier_runs_the_newest_logs_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let begin = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        for number in 0..MAX_OLD_PODS + 3 {
            let path = path_of(folder.path(), "n", &format!("p{number}"), "c");
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            let file = File::create(&path).expect("a file");
            file.set_modified(begin + std::time::Duration::from_secs(number as u64))
                .expect("dated");
        }
        fs::create_dir(folder.path().join("empty")).expect("made");
        remove_old(folder.path());
        let kept = fs::read_dir(folder.path().join("n")).expect("read").count();
        assert_eq!(kept, MAX_OLD_PODS);
        for number in 0..3 {
            assert!(!folder.path().join(format!("n/p{number}")).exists());
        }
        assert!(!folder.path().join("empty").exists());
        let big = File::create(path_of(folder.path(), "n", "p3", "c")).expect("a file");
        big.set_len(MAX_OLD_BYTES).expect("sized");
        big.set_modified(begin).expect("dated");
        remove_old(folder.path());
        assert!(folder.path().join("n/p4").exists());
        big.set_modified(SystemTime::now()).expect("dated");
        remove_old(folder.path());
        assert!(folder.path().join("n/p3").exists());
    }

    #[tokio::test]
    async fn lines_are_kept_apart_and_a_new_run_keeps_the_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, previous) = (
            path_of(folder.path(), "n", "p", "c"),
            previous_path_of(folder.path(), "n", "p", "c"),
        );
        let log = LogFile::begin(&path, &previous).expect("a file");
        let (read, write) = crate::launch::pipe().expect("a pipe");
        nix::fcntl::fcntl(
            &read,
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
        )
        .expect("nonblocking");
        let copy = tokio::spawn(log.copy("stdout", read));
        let long = "x".repeat(MAX_LINE_BYTES + 3);
        File::from(write)
            .write_all(format!("one\n{long}\nlast").as_bytes())
            .expect("written");
        copy.await.expect("copied");
        let text = fs::read_to_string(&path).expect("read");
        let lines: Vec<(bool, usize)> = text
            .lines()
            .filter_map(parse_line)
            .map(|(_, whole, text)| (whole, text.len()))
            .collect();
        assert_eq!(
            lines,
            [(true, 3), (false, MAX_LINE_BYTES), (true, 3), (true, 4)]
        );
        LogFile::begin(&path, &previous).expect("a new file");
        assert_eq!(fs::read_to_string(&previous).expect("read"), text);
    }
}
