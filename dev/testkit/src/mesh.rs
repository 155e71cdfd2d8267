//! One mesh on this machine, for one test.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Gid, Pid, Uid, chown, setgroups},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    programs::{copy_tree, envoy, open, programs},
    wait::eventually,
};

const NOBODY: u32 = 65_534;
/// Debug builds on two busy cores need some patience.
const START_LIMIT: Duration = Duration::from_secs(90);
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Who runs the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Whoever runs the test.
    Own,
    /// A user without any right; only root can become it.
    Nobody,
}

/// Which proxy stands beside the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    Tanbark,
    Envoy,
}

/// What a command said and how it ended.
#[derive(Debug, Clone)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The output of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            self.code, 0,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stdout
    }
}

/// What the mesh is to be.
pub struct Builder {
    user: User,
    proxy: Proxy,
    samples: Vec<String>,
    files: Vec<(String, String)>,
    arguments: Vec<String>,
}

pub struct Mesh {
    folder: TempDir,
    user: User,
    proxy: Proxy,
    arguments: Vec<String>,
    child: Child,
}

impl Mesh {
    pub fn builder() -> Builder {
        Builder {
            user: User::Own,
            proxy: Proxy::Tanbark,
            samples: Vec::new(),
            files: Vec::new(),
            arguments: Vec::new(),
        }
    }

    /// The folder of YAML that the runtime watches.
    pub fn sources(&self) -> PathBuf {
        self.folder.path().join("yaml")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Writes (or replaces) a watched file, at once and whole.
    pub fn write(&self, name: &str, yaml: &str) {
        let partial = self.folder.path().join("partial");
        fs::write(&partial, yaml).expect("write YAML");
        fs::rename(&partial, self.sources().join(name)).expect("place YAML");
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.sources().join(name)).expect("remove YAML");
    }

    /// Runs `tanbark ARGUMENTS --state …` as the mesh's user.
    pub fn tanbark(&self, arguments: &[&str]) -> Run {
        run(self.command(arguments))
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let split = arguments
            .iter()
            .position(|argument| *argument == "--")
            .unwrap_or(arguments.len());
        let (own, rest) = arguments.split_at(split);
        let mut command = as_user(self.user, "tanbark");
        command
            .args(own)
            .arg("--state")
            .arg(self.state())
            .args(rest);
        command
    }

    /// Runs a command in a pod or Deployment (`deploy/NAME`, perhaps with `-n NAMESPACE` before it).
    pub fn exec(&self, target: &[&str], command: &[&str]) -> Run {
        let arguments: Vec<&str> = ["exec"]
            .iter()
            .chain(target)
            .chain(&["--"])
            .chain(command)
            .copied()
            .collect();
        self.tanbark(&arguments)
    }

    /// The objects of a kind, everywhere.
    pub fn objects(&self, kind: &str) -> Vec<Value> {
        let text = self.tanbark(&["get", kind, "-A", "-o", "json"]).ok();
        let list: Value = serde_json::from_str(&text).expect("a list as JSON");
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// `127.0.0.1:PORT` where a Service's port is published.
    #[track_caller]
    pub fn published(&self, namespace: &str, service: &str, port: u16) -> String {
        eventually(
            &format!("{namespace}/{service}:{port} is published"),
            Duration::from_secs(20),
            || {
                let services = self.objects("services");
                let found = services.iter().find(|s| {
                    s["metadata"]["namespace"] == namespace && s["metadata"]["name"] == service
                });
                let list = found
                    .and_then(|s| s["metadata"]["annotations"]["tanbark.io/published"].as_str())
                    .unwrap_or_default()
                    .to_owned();
                let address = list
                    .split(',')
                    .find_map(|entry| entry.strip_prefix(&format!("{port}=")).map(str::to_owned));
                address.ok_or(list)
            },
        )
    }

    /// curl on this machine, outside of the mesh.
    pub fn curl(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "30"]).args(arguments);
        run(command)
    }

    /// Waits until every pod is ready (or has completed).
    #[track_caller]
    pub fn wait_ready(&self) {
        let start = Instant::now();
        loop {
            let waiting = self.unready();
            match waiting {
                Ok(names) if names.is_empty() => return,
                waiting if start.elapsed() > START_LIMIT => {
                    panic!("pods are not ready: {waiting:?}\n{}", self.story())
                }
                _ => std::thread::park_timeout(Duration::from_millis(100)),
            }
        }
    }

    fn unready(&self) -> Result<Vec<String>, String> {
        let listed = self.tanbark(&["get", "pods", "-A", "-o", "json"]);
        if listed.code != 0 {
            return Err(listed.stderr);
        }
        let list: Value =
            serde_json::from_str(&listed.stdout).map_err(|error| error.to_string())?;
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        if pods.is_empty() {
            return Err("no pods yet".into());
        }
        let is_ready = |pod: &Value| {
            let conditions = pod["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            pod["status"]["phase"] == "Succeeded"
                || conditions
                    .iter()
                    .any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        Ok(pods
            .iter()
            .filter(|pod| !is_ready(pod))
            .map(|pod| {
                format!(
                    "{}/{}",
                    pod["metadata"]["namespace"], pod["metadata"]["name"]
                )
            })
            .collect())
    }

    /// What a person would look at when something is wrong.
    pub fn story(&self) -> String {
        let pods = self.tanbark(&["get", "pods", "-A"]);
        let status = self.tanbark(&["status"]);
        let log = fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(80).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        let told = format!(
            "--- pods\n{}{}\n--- status\n{}{}\n",
            pods.stdout, pods.stderr, status.stdout, status.stderr
        );
        format!(
            "{told}--- up\n{}\n--- logs\n{}\n",
            tail.join("\n"),
            self.complaints()
        )
    }

    /// What containers wrote about trouble: failed requests in access logs, warnings and errors of programs; the last lines of each.
    fn complaints(&self) -> String {
        let mut files = Vec::new();
        files_below(&self.state().join("logs"), &mut files);
        let is_trouble = |line: &&str| {
            let quoted = line.split('"').nth(2).unwrap_or_default().trim_start();
            [
                "WARN",
                "ERROR",
                "[warning]",
                "[error]",
                "[critical]",
                "panicked",
            ]
            .iter()
            .any(|word| line.contains(word))
                || quoted.starts_with('5')
                || quoted.starts_with("0 ")
        };
        let mut out = String::new();
        for file in files {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let lines: Vec<&str> = text.lines().filter(is_trouble).collect();
            for line in lines.iter().skip(lines.len().saturating_sub(10)) {
                let line: String = line.chars().take(500).collect();
                out.push_str(&format!(
                    "{}: {line}\n",
                    file.strip_prefix(self.state()).unwrap_or(&file).display()
                ));
            }
        }
        out
    }

    /// The text that `up` printed.
    pub fn up_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default()
    }

    /// Process id of `tanbark up`.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Starts `tanbark up` again after its end, over the same folders.
    pub fn restart(&mut self) {
        assert!(
            matches!(self.child.try_wait(), Ok(Some(_))),
            "it still runs"
        );
        self.child = spawn_up(self.folder.path(), self.user, self.proxy, &self.arguments);
    }

    /// Sends a signal to `tanbark up` and waits for its end; the time it took.
    pub fn stop_by(&mut self, signal: Signal, limit: Duration) -> Duration {
        let start = Instant::now();
        kill(Pid::from_raw(self.pid()), signal).expect("send a signal");
        eventually("`tanbark up` ends", limit, || match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        start.elapsed()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.story());
        }
        let down = self.tanbark(&["down"]);
        if down.code != 0 && self.child.try_wait().ok().flatten().is_none() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

impl Builder {
    pub fn user(mut self, user: User) -> Self {
        self.user = user;
        self
    }

    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = proxy;
        self
    }

    /// A folder of `samples/`.
    pub fn sample(mut self, name: &str) -> Self {
        self.samples.push(name.to_owned());
        self
    }

    /// A further file beside the samples.
    pub fn file(mut self, name: &str, yaml: &str) -> Self {
        self.files.push((name.to_owned(), yaml.to_owned()));
        self
    }

    /// A further argument of `tanbark up`.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts the mesh and waits until all its pods are ready.
    #[track_caller]
    pub fn start(self) -> Mesh {
        let mesh = self.launch();
        mesh.wait_ready();
        mesh
    }

    /// Starts the mesh and waits for nothing.
    pub fn launch(self) -> Mesh {
        let folder = tempfile::Builder::new()
            .prefix("tanbark-test-")
            .tempdir()
            .expect("a folder");
        open(folder.path());
        let sources = folder.path().join("yaml");
        fs::create_dir(&sources).expect("a folder");
        for sample in &self.samples {
            copy_tree(
                &programs().join("samples").join(sample),
                &sources.join(sample),
            );
        }
        for (name, yaml) in &self.files {
            fs::write(sources.join(name), yaml).expect("write YAML");
        }
        if self.user == User::Nobody {
            give(folder.path());
        }
        let child = spawn_up(folder.path(), self.user, self.proxy, &self.arguments);
        let Self {
            user,
            proxy,
            arguments,
            ..
        } = self;
        Mesh {
            folder,
            user,
            proxy,
            arguments,
            child,
        }
    }
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files_below(&entry.path(), files);
        } else {
            files.push(entry.path());
        }
    }
}

/// `tanbark up` over the YAML of a mesh's folder.
fn spawn_up(folder: &Path, user: User, proxy: Proxy, arguments: &[String]) -> Child {
    let log = File::create(folder.join("up.log")).expect("a log");
    let mut command = as_user(user, "tanbark");
    command
        .arg("up")
        .arg(folder.join("yaml"))
        .arg("--images")
        .arg(programs().join("samples/images.yaml"));
    command
        .arg("--state")
        .arg(folder.join("state"))
        .args(arguments);
    if proxy == Proxy::Envoy {
        command
            .args(["--proxy", "envoy"])
            .env("TANBARK_ENVOY", envoy());
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log);
    command.spawn().expect("start tanbark")
}

/// Hands a folder and what is in it to nobody.
fn give(path: &Path) {
    chown(
        path,
        Some(Uid::from_raw(NOBODY)),
        Some(Gid::from_raw(NOBODY)),
    )
    .expect("chown");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            give(&entry.expect("an entry").path());
        }
    }
}

/// A program of the build, to be run as `user`.
fn as_user(user: User, program: &str) -> Command {
    let mut command = Command::new(programs().join(program));
    if user == User::Nobody {
        assert!(
            Uid::effective().is_root(),
            "only root can run a test as another user"
        );
        command.env("HOME", "/nonexistent");
        // SAFETY: only system calls between fork and exec.
        unsafe {
            command.pre_exec(|| {
                setgroups(&[]).map_err(std::io::Error::from)?;
                nix::unistd::setgid(Gid::from_raw(NOBODY)).map_err(std::io::Error::from)?;
                nix::unistd::setuid(Uid::from_raw(NOBODY)).map_err(std::io::Error::from)
            });
        }
    }
    command
}

/// Runs a command to its end, at most `COMMAND_LIMIT`.
fn run(mut command: Command) -> Run {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if wait.recv_timeout(COMMAND_LIMIT).is_err() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    let output = child.wait_with_output().expect("the command's output");
    let _ = done.send(());
    let _ = watchdog.join();
    Run::of(output)
}
