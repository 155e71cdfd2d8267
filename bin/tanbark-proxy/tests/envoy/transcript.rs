//! A run of a case with one program as text, and the comparison of two.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::{Duration, Instant, SystemTime},
};

use identity::{
    CertificateAuthority, IdentityHandle, ServiceAccountName, SpiffeId, TrustDomain,
    tls::{ServerTls, server_config},
};
use regex::Regex;
use tokio_rustls::TlsAcceptor;

use crate::{
    backend::Backends,
    case::{self, Case, Step},
    client,
    config::{self, Places},
    program::{self, DEADLINE, Program, Which},
};

/// A lifetime for certificates that end with the test.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Between requests that are under way together.
const STAGGER: Duration = Duration::from_millis(40);

/// Runs the case with both programs, once; what they do must be the same. What is a matter of
/// timing alone is masked by the step, in the words that it concerns.
pub fn compare(name: &str) {
    let Some(envoy) = program::envoy(name) else {
        return;
    };
    let report = differences(name, &envoy);
    assert!(
        report.is_empty(),
        "{name}.yaml: - is Envoy, + is Tanbark\n{report}"
    );
}

/// What the two did differently in one run; empty: nothing that is not known.
fn differences(name: &str, envoy: &Path) -> String {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (theirs, ours) = runtime.block_on(async {
        tokio::join!(
            run(name, Which::Envoy, envoy),
            run(name, Which::Tanbark, envoy)
        )
    });
    let mut report = String::new();
    let steps: Vec<Step> = case::read(name)
        .steps
        .into_iter()
        .map(|s| s.into_step())
        .collect();
    for (at, (theirs, ours)) in theirs.iter().zip(&ours).enumerate() {
        let step = steps.get(at);
        match (step.and_then(|s| s.differs.as_ref()), theirs == ours) {
            (None, true) | (Some(_), false) => {}
            (Some(_), true) => {
                let _ = writeln!(
                    report,
                    "no longer differs: {}",
                    step.map(Step::title).unwrap_or_default()
                );
            }
            (None, false) => report += &difference(theirs, ours),
        }
    }
    report
}

/// The lines of both, those that differ marked.
fn difference(theirs: &str, ours: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (theirs.lines().collect(), ours.lines().collect());
    // Longest common subsequence; the texts are short.
    let mut table = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            table[i][j] = if a[i] == b[j] {
                table[i + 1][j + 1] + 1
            } else {
                table[i + 1][j].max(table[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, String::new());
    while i < a.len() || j < b.len() {
        let (sign, line) = if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
            (' ', a[i - 1])
        } else if i < a.len() && (j == b.len() || table[i + 1][j] >= table[i][j + 1]) {
            i += 1;
            ('-', a[i - 1])
        } else {
            j += 1;
            ('+', b[j - 1])
        };
        let _ = writeln!(out, "{sign} {line}");
    }
    out + "\n"
}

/// What one run needs beside the program.
pub struct Run {
    pub case: Case,
    pub places: Places,
    backends: Backends,
    identity: IdentityHandle,
    pub log: PathBuf,
    pub folder: tempfile::TempDir,
}

/// The text of each step, and at the end that of the counters.
async fn run(name: &str, which: Which, envoy: &Path) -> Vec<String> {
    let mut run = prepare(case::read(name)).await;
    let file = run.folder.path().join("bootstrap.json");
    let config = config::bootstrap(&run.case, &run.places, &run.log);
    std::fs::write(&file, serde_json::to_string_pretty(&config).expect("JSON")).expect("a file");
    let program = Program::start(which, envoy, &file, run.places.admin).await;
    let steps = std::mem::take(&mut run.case.steps);
    let mut logged = 0;
    let mut texts = Vec::new();
    for step in steps {
        let step = step.into_step();
        let answer = answers(&step, &run).await;
        let lines = log_lines(&run.log, logged, step.log_lines()).await;
        logged += lines.len();
        wait_for_seen(&run.backends, step.seen).await;
        let many = step.times.max(step.parallel) > 0;
        let mut text = format!("== {}\n{answer}", step.title());
        if many {
            let seen = run.backends.seen.take();
            text += &tally(
                seen.iter()
                    .map(|text| named(&first_line(text), &run.places)),
            );
            text += &tally(lines.iter().map(|line| named(line, &run.places)));
        } else {
            for request in run.backends.seen.take() {
                text += &format!("{request}\n");
            }
            for line in lines {
                text += &format!("log {line}\n");
            }
        }
        texts.push(mask(&named(&text, &run.places), &step.mask));
    }
    let mut text = String::from("== counters\n");
    for name in &run.case.stats {
        let _ = writeln!(text, "{name}: {}", program.counter(name).await);
    }
    texts.push(text);
    if std::env::var_os("SHOW").is_some() {
        println!("##### {which:?}\n{}", texts.join("\n"));
    }
    texts
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

pub async fn prepare(case: Case) -> Run {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = authority();
    let server = issue(&authority, "server");
    let tls = ServerTls::workload(IdentityHandle::with(server.clone()), Vec::new(), Vec::new());
    let acceptor = TlsAcceptor::from(
        server_config(&ServerTls {
            client_auth: identity::tls::ClientAuth::None,
            ..tls
        })
        .expect("a server"),
    );
    let kinds = case
        .backends
        .iter()
        .map(|(name, kind)| (name.clone(), *kind))
        .collect();
    let backends = Backends::start(kinds, acceptor).await;
    let mut free = program::free_addresses(case.listeners.len() + 1).into_iter();
    let texts = [
        ("ca", authority.bundle().to_pem()),
        ("server.crt", server.certificate().chain().to_pem()),
        (
            "server.key",
            server.certificate().key().to_pem().to_string(),
        ),
    ];
    let places = Places {
        admin: free.next().expect("enough"),
        listeners: case.listeners.keys().cloned().zip(free).collect(),
        backends: backends.addresses.iter().cloned().collect(),
        texts: texts.map(|(name, text)| (name.to_owned(), text)).into(),
    };
    Run {
        case,
        places,
        backends,
        identity: IdentityHandle::with(issue(&authority, "client")),
        log: folder.path().join("access.log"),
        folder,
    }
}

fn authority() -> CertificateAuthority {
    let domain = TrustDomain::parse("cluster.local").expect("a domain");
    CertificateAuthority::self_signed(&domain, SystemTime::now()).expect("an authority")
}

fn issue(authority: &CertificateAuthority, account: &str) -> identity::WorkloadIdentity {
    let domain = TrustDomain::parse("cluster.local").expect("a domain");
    let account = ServiceAccountName::new("default", account).expect("an account");
    let id = SpiffeId::workload(&domain, &account);
    authority
        .issue_workload(&id, LIFETIME, SystemTime::now())
        .expect("a certificate")
}

async fn answers(step: &Step, run: &Run) -> String {
    let address = run.places.listeners[&step.to];
    if step.parallel > 0 {
        // One after the other, so that each meets what the one before it left.
        let all = (0..step.parallel).map(|number| async move {
            tokio::time::sleep(STAGGER * u32::try_from(number).unwrap_or(0)).await;
            client::run(step, address, &run.identity).await
        });
        let answers = futures_util::future::join_all(all).await;
        return tally(answers.iter().map(|a| named(a, &run.places)));
    }
    if step.times > 0 {
        let mut answers = Vec::new();
        for _ in 0..step.times {
            answers.push(client::run(step, address, &run.identity).await);
        }
        return tally(answers.iter().map(|a| named(a, &run.places)));
    }
    client::run(step, address, &run.identity).await
}

/// How often each text came.
fn tally(texts: impl Iterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for text in texts {
        *counts.entry(text.trim_end().to_owned()).or_default() += 1;
    }
    counts
        .iter()
        .map(|(text, count)| format!("{count} × {text}\n"))
        .collect()
}

/// Lines of the log after the first `from`: waits until there are as many as are expected.
async fn log_lines(log: &Path, from: usize, count: usize) -> Vec<String> {
    let start = Instant::now();
    loop {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        // A line that is not written whole yet is none.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines: Vec<String> = whole.lines().skip(from).map(str::to_owned).collect();
        if lines.len() >= count || start.elapsed() > DEADLINE {
            let mut lines = lines;
            lines.sort();
            return lines;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn wait_for_seen(backends: &Backends, count: usize) {
    let start = Instant::now();
    while backends.seen.len() < count && start.elapsed() < DEADLINE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Names for what is different in every run.
fn named(text: &str, places: &Places) -> String {
    static RULES: LazyLock<Arc<[(Regex, &str)]>> = LazyLock::new(|| {
        let rules = [
            (
                "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
                "<uuid>",
            ),
            ("(?m)^(\\s*)date: .*$", "${1}date: <date>"),
            (
                "x-envoy-upstream-service-time: \\d+",
                "x-envoy-upstream-service-time: <n>",
            ),
            // All of 15 s, or what is left of them for another attempt.
            (
                "x-envoy-expected-rq-timeout-ms: (15000|14\\d\\d\\d)",
                "x-envoy-expected-rq-timeout-ms: <15000 or less>",
            ),
            ("127\\.0\\.0\\.1:\\d+", "127.0.0.1:<port>"),
            ("Hash=[0-9a-f]{64}", "Hash=<hash>"),
        ];
        rules
            .map(|(rule, name)| (Regex::new(rule).expect("a rule"), name))
            .into()
    });
    let mut text = text.to_owned();
    for (name, address) in places.backends.iter().chain(&places.listeners) {
        text = text.replace(&address.to_string(), &format!("<{name}>"));
        text = text.replace(
            &format!(":{}", address.port()),
            &format!(":<port of {name}>"),
        );
    }
    for (rule, name) in RULES.iter() {
        text = rule.replace_all(&text, *name).into_owned();
    }
    text
}

fn mask(text: &str, rules: &[String]) -> String {
    rules.iter().fold(text.to_owned(), |text, rule| {
        let rule = Regex::new(rule).expect("a mask is a regular expression");
        rule.replace_all(&text, "").into_owned()
    })
}
