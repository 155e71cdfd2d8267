//! Requests from pods and from this machine, what proxies say about them, and work that goes on beside the test.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    mesh::{Mesh, Run},
    programs::programs,
    wait::eventually,
};

/// The answer to one request by curl.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// HTTP status, 0 when there was none.
    pub status: u16,
    pub body: String,
    /// Seconds.
    pub time: f64,
    /// curl's own exit code; 0 when there was an answer.
    pub code: i32,
}

/// A command in a pod that goes on beside the test; it is ended with the value.
pub struct Background {
    child: Option<Child>,
    what: String,
}

impl Mesh {
    /// One request by curl in the pod of `from`, with further arguments of curl.
    pub fn request(&self, from: &[&str], url: &str, arguments: &[&str]) -> Answer {
        let fixed = [
            "curl",
            "-s",
            "--max-time",
            "20",
            "-w",
            "\n%{http_code} %{time_total}",
            url,
        ];
        let command: Vec<&str> = fixed.iter().chain(arguments).copied().collect();
        answer(self.exec(from, &command))
    }

    /// One request by curl on this machine.
    pub fn request_from_outside(&self, url: &str, arguments: &[&str]) -> Answer {
        let fixed = ["-w", "\n%{http_code} %{time_total}", url];
        let command: Vec<&str> = fixed.iter().chain(arguments).copied().collect();
        answer(self.curl(&command))
    }

    /// Waits until a request is answered with `status`.
    #[track_caller]
    pub fn wait_for_status(
        &self,
        from: &[&str],
        url: &str,
        arguments: &[&str],
        status: u16,
    ) -> Answer {
        eventually(
            &format!("{from:?} gets {status} from {url}"),
            Duration::from_secs(20),
            || {
                let answer = self.request(from, url, arguments);
                if answer.status == status {
                    Ok(answer)
                } else {
                    Err(answer)
                }
            },
        )
    }

    /// The report of `tanbark-echo load ARGUMENTS` in the pod of `from`.
    #[track_caller]
    pub fn load(&self, from: &[&str], arguments: &[&str]) -> Value {
        let program = echo_program();
        let command: Vec<&str> = [program.as_str(), "load"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let run = self.exec(from, &command);
        let last = run.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last)
            .unwrap_or_else(|error| panic!("load {arguments:?}: {error}: {run:?}"))
    }

    /// A command in the pod of `from` that goes on until it ends by itself or [`Background::finish`] is called.
    pub fn start_in(&self, from: &[&str], command: &[&str]) -> Background {
        let arguments: Vec<&str> = ["exec"]
            .iter()
            .chain(from)
            .chain(&["--"])
            .chain(command)
            .copied()
            .collect();
        let mut started = self.command(&arguments);
        started
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = started.spawn().expect("start a command in a pod");
        Background {
            child: Some(child),
            what: command.join(" "),
        }
    }

    /// What the echo of `target` has counted.
    #[track_caller]
    pub fn counters(&self, target: &[&str]) -> Value {
        let text = self
            .exec(target, &["curl", "-s", "http://127.0.0.1:8080/counters"])
            .ok();
        serde_json::from_str(&text).expect("counters as JSON")
    }

    /// The proxy's statistics beside `target` whose names match `filter`, as Envoy's admin page prints them.
    #[track_caller]
    pub fn stats(&self, target: &[&str], filter: &str) -> Vec<(String, u64)> {
        let text = self
            .exec(
                target,
                &[
                    "curl",
                    "-s",
                    &format!("http://127.0.0.1:15000/stats?filter={filter}"),
                ],
            )
            .ok();
        text.lines()
            .filter_map(|line| line.rsplit_once(": "))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// The sum of the proxy's statistics whose names match `filter`.
    #[track_caller]
    pub fn stat(&self, target: &[&str], filter: &str) -> u64 {
        self.stats(target, filter)
            .iter()
            .map(|(_, value)| value)
            .sum()
    }

    /// What the proxy beside `target` wrote: its access log among other lines.
    pub fn proxy_log(&self, target: &[&str]) -> String {
        let arguments: Vec<&str> = ["logs"]
            .iter()
            .chain(target)
            .chain(&["-c", "istio-proxy"])
            .copied()
            .collect();
        self.tanbark(&arguments).stdout
    }

    /// Waits for a line of the access log beside `target` that holds every one of `parts`.
    #[track_caller]
    pub fn wait_for_log(&self, target: &[&str], parts: &[&str]) -> String {
        eventually(
            &format!("an access-log line with {parts:?}"),
            Duration::from_secs(15),
            || {
                let log = self.proxy_log(target);
                let found = log
                    .lines()
                    .find(|line| parts.iter().all(|part| line.contains(part)))
                    .map(str::to_owned);
                found.ok_or_else(|| log.lines().rev().take(10).collect::<Vec<_>>().join("\n"))
            },
        )
    }

    /// The Prometheus page of the proxy beside `target`.
    #[track_caller]
    pub fn prometheus(&self, target: &[&str]) -> Vec<Sample> {
        let text = self
            .exec(
                target,
                &["curl", "-s", "http://127.0.0.1:15090/stats/prometheus"],
            )
            .ok();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(sample)
            .collect()
    }

    /// istiod's page about what each proxy was sent and took.
    #[track_caller]
    pub fn syncz(&self) -> Vec<Value> {
        let text = self
            .exec(
                &["-n", "istio-system", "deploy/istiod"],
                &["curl", "-s", "http://127.0.0.1:15014/debug/syncz"],
            )
            .ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Every proxy took everything that it was sent.
    #[track_caller]
    pub fn assert_no_nack(&self) {
        let proxies = self.syncz();
        assert!(!proxies.is_empty(), "no proxy is connected");
        for proxy in proxies {
            for (type_url, row) in proxy["resources"].as_object().cloned().unwrap_or_default() {
                assert!(
                    row["rejected"] == 0,
                    "{} refused {type_url}: {}",
                    proxy["proxy"],
                    row["lastRejection"]
                );
            }
        }
    }
}

/// One line of a Prometheus page.
#[derive(Debug, Clone)]
pub struct Sample {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Sample {
    pub fn label(&self, key: &str) -> &str {
        self.labels
            .iter()
            .find(|(name, _)| name == key)
            .map_or("", |(_, value)| value)
    }

    /// Whether all of `wanted` are among the labels.
    pub fn has(&self, wanted: &[(&str, &str)]) -> bool {
        wanted.iter().all(|(key, value)| self.label(key) == *value)
    }
}

/// `name{a="b",c="d"} 1`; values of labels hold no escaped quotes here.
fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.trim().rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let pair = |part: &str| {
        part.split_once("=\"")
            .map(|(key, value)| (key.to_owned(), value.trim_end_matches('"').to_owned()))
    };
    let labels = labels
        .trim_end_matches('}')
        .split("\",")
        .filter_map(pair)
        .collect();
    Some(Sample {
        name: name.into(),
        labels,
        value: value.parse().ok()?,
    })
}

/// The path of `tanbark-echo`, the same in pods.
pub fn echo_program() -> String {
    programs().join("tanbark-echo").display().to_string()
}

fn answer(run: Run) -> Answer {
    let (body, last) = run
        .stdout
        .trim_end()
        .rsplit_once('\n')
        .unwrap_or(("", run.stdout.trim()));
    let mut figures = last.split(' ');
    let status = figures
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let time = figures
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0.0);
    let code = if status == 0 && run.code == 0 {
        -1
    } else {
        run.code
    };
    let body = if code == 0 {
        body.to_owned()
    } else {
        format!("{body}{}", run.stderr)
    };
    Answer {
        status,
        body,
        time,
        code,
    }
}

impl Background {
    /// Waits for its own end.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Run {
        let mut child = self.child.take().expect("a child until it is waited for");
        let start = Instant::now();
        // Output is short (reports), so the pipe does not fill while nobody reads.
        while child.try_wait().expect("wait for a child").is_none() {
            if start.elapsed() > limit {
                let _ = child.kill();
                let output = child.wait_with_output();
                panic!("`{}` did not end within {limit:?}: {output:?}", self.what);
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Run::of(child.wait_with_output().expect("the command's output"))
    }

    /// Its last line as JSON, after its own end.
    #[track_caller]
    pub fn report(self, limit: Duration) -> Value {
        let run = self.wait(limit);
        let last = run.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {run:?}"))
    }

    /// Whether it still goes on.
    pub fn runs(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The path of a program of this machine, also one that only root has on PATH; `None` when it is not installed.
pub fn installed(program: &str) -> Option<String> {
    let run = Command::new("sh")
        .args([
            "-c",
            &format!("PATH=$PATH:/usr/sbin:/sbin command -v {program}"),
        ])
        .output()
        .ok()?;
    let path = String::from_utf8_lossy(&run.stdout).trim().to_owned();
    (!path.is_empty()).then_some(path)
}
