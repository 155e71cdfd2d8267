//! A running Envoy or `tanbark-proxy`.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Whatever is waited for comes within this time, or the test fails.
pub const DEADLINE: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Envoy,
    Tanbark,
}

pub struct Program {
    child: Child,
    admin: SocketAddr,
    which: Which,
    errors: PathBuf,
}

/// Set where the comparison with Envoy may be left out.
const WITHOUT_ENVOY: &str = "TANBARK_TESTS_WITHOUT_ENVOY";

/// The stock Envoy. `None`: there is none, and [`WITHOUT_ENVOY`] is set; that this case was left
/// out is said where nobody misses it.
///
/// # Panics
/// When there is none otherwise.
pub fn envoy(case: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = std::env::var_os("TANBARK_ENVOY").map(PathBuf::from);
    let packaged = || {
        let versions = fs::read_dir(root.join(".venv/lib")).ok()?;
        versions
            .flatten()
            .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
            .find(|path| path.exists())
    };
    let found = named.or_else(packaged);
    if found.is_none() {
        assert!(
            std::env::var_os(WITHOUT_ENVOY).is_some(),
            "no Envoy: run `make test-tools`, or name one in TANBARK_ENVOY, or set {WITHOUT_ENVOY} to leave the comparison out"
        );
        let check = format!("the comparison with Envoy, {case}");
        // Not by a macro, whose words a test that passes keeps to itself.
        let _ = writeln!(std::io::stderr(), "left out: {check}");
        testkit::left_out(&check, "no Envoy");
    }
    found
}

/// Ports that nobody uses now, and that nobody is given by chance: below those of the kernel's
/// choice, and each only once in this process.
pub fn free_addresses(count: usize) -> Vec<SocketAddr> {
    const PORTS: std::ops::Range<u32> = 18_000..30_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id();
    let candidates = std::iter::repeat_with(|| {
        let offset =
            start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        let port = u16::try_from(PORTS.start + offset).expect("a port");
        SocketAddr::from(([127, 0, 0, 1], port))
    });
    candidates
        .filter(|address| TcpListener::bind(address).is_ok())
        .take(count)
        .collect()
}

impl Program {
    /// Starts it and waits until it says that it is ready.
    pub async fn start(which: Which, envoy: &Path, config: &Path, admin: SocketAddr) -> Self {
        let errors = config.with_extension("log");
        let mut command = match which {
            Which::Envoy => {
                let mut command = Command::new(envoy);
                command.args(["--disable-hot-restart", "--log-level", "error"]);
                command.args(["--file-flush-interval-msec", "20", "--drain-time-s", "2"]);
                command
            }
            Which::Tanbark => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_tanbark-proxy"));
                command.args(["sidecar", "--log", "warn"]);
                command
            }
        };
        let child = command
            .args(["--concurrency", "1", "-c"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&errors).expect("a file"))
            .spawn()
            .expect("the program starts");
        let mut program = Self {
            child,
            admin,
            which,
            errors,
        };
        program.until_ready().await;
        program
    }

    async fn until_ready(&mut self) {
        let start = Instant::now();
        loop {
            let ready = self
                .admin("GET", "/ready")
                .await
                .is_some_and(|answer| answer.starts_with("LIVE"));
            if ready {
                return;
            }
            let ended = self.child.try_wait().expect("its state");
            let problem = || fs::read_to_string(&self.errors).unwrap_or_default();
            assert!(ended.is_none(), "{:?} ended:\n{}", self.which, problem());
            assert!(
                start.elapsed() < DEADLINE,
                "{:?} is not ready:\n{}",
                self.which,
                problem()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The body of an answer of the admin port.
    pub async fn admin(&self, method: &str, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).await.ok()?;
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let chunked = head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked");
        Some(if chunked {
            unchunk(body)
        } else {
            body.to_owned()
        })
    }

    /// Memory that it holds.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
            .expect("a process that lives")
    }

    /// A counter's or gauge's value; 0 where it is not shown.
    pub async fn counter(&self, name: &str) -> u64 {
        let text = self.admin("GET", "/stats").await.unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It is ours and holds nothing that needs an orderly end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else {
            break;
        };
        out.push_str(rest.get(..size).unwrap_or_default());
        body = rest.get(size + 2..).unwrap_or_default();
    }
    out
}
