//! The two proxies as processes, what is asked of them, and the lines that they log.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use testkit::{eventually, installed};

use super::{
    bootstrap::{Certificates, FORMS, Ports, bootstrap},
    requests::Situation,
    upstream,
};

/// Both, with the same upstream.
pub struct Both {
    pub envoy: Running,
    pub ours: Running,
}

/// A proxy that runs until the value is dropped.
pub struct Running {
    pub ports: Ports,
    folder: tempfile::TempDir,
    child: Child,
    /// Bytes of each file that earlier situations wrote.
    seen: Mutex<BTreeMap<PathBuf, usize>>,
}

/// An answer of the admin port.
pub struct Page {
    pub status: u16,
    pub kind: String,
    pub body: String,
}

impl Page {
    /// Whether it says that it is JSON.
    pub fn json(&self) -> bool {
        self.kind.starts_with("application/json")
    }
}

pub enum Program {
    Envoy,
    Ours,
}

pub fn both() -> Both {
    let certificates = certificates();
    let (upstream, upstream_tcp) = upstream::start();
    let refusing = upstream::refusing_port();
    let start =
        |program| Running::start(program, &certificates, (upstream, upstream_tcp, refusing));
    Both {
        envoy: start(Program::Envoy),
        ours: start(Program::Ours),
    }
}

fn free_port() -> u16 {
    upstream::refusing_port()
}

/// A root and two leaves of it.
fn certificates() -> Certificates {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "root");
    let key = KeyPair::generate().expect("a key");
    let root = CertifiedIssuer::self_signed(params, key).expect("a root");
    let leaf = |name: &str| {
        let dns = vec![
            format!("{name}.example.com"),
            format!("{name}.second.example"),
        ];
        let mut params = CertificateParams::new(dns).expect("parameters");
        let text = |text: String| text.as_str().try_into().expect("ASCII");
        params.subject_alt_names.extend([
            SanType::URI(text(format!("spiffe://cluster.local/ns/default/sa/{name}"))),
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::Rfc822Name(text("a@b.example".to_owned())),
        ]);
        params.distinguished_name.push(DnType::CommonName, name);
        params
            .distinguished_name
            .push(DnType::OrganizationName, "cluster.local");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &root).expect("a leaf");
        (certificate.pem(), key.serialize_pem())
    };
    Certificates {
        server: leaf("server"),
        client: leaf("client"),
        root: root.pem(),
    }
}

impl Program {
    fn command(&self, bootstrap: &Path) -> Command {
        let mut command = match self {
            Self::Envoy => {
                let mut command = Command::new(testkit::envoy());
                command.args(["--use-dynamic-base-id", "-l", "error", "--concurrency", "1"]);
                command.args(["--file-flush-interval-msec", "20"]);
                command
            }
            Self::Ours => {
                let mut command = Command::new(testkit::programs().join("tanbark-proxy"));
                command.args(["--log", "error", "sidecar"]);
                command
            }
        };
        command.arg("-c").arg(bootstrap);
        command.env("OBSERVED_VARIABLE", "of the environment");
        command.env("TZ", "UTC0");
        command
    }

    /// Fails when `promtool` is installed and finds a fault in the format.
    pub fn promtool_agrees(page: &str) {
        let Some(promtool) = installed("promtool") else {
            return;
        };
        let mut child = Command::new(promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool");
        let mut input = child.stdin.take().expect("a pipe");
        let page = page.to_owned();
        let writer = thread::spawn(move || input.write_all(page.as_bytes()));
        let output = child.wait_with_output().expect("promtool");
        writer.join().expect("no panic").expect("it reads");
        let found = String::from_utf8_lossy(&output.stderr);
        // Style is Envoy's and Istio's affair; 1 is a text that cannot be read.
        assert!(!found.contains("error while linting"), "{found}");
    }
}

impl Running {
    fn start(
        program: Program,
        certificates: &Certificates,
        (upstream, upstream_tcp, refusing): (u16, u16, u16),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ports = Ports {
            admin: free_port(),
            http: free_port(),
            https: free_port(),
            tcp: free_port(),
            tcp_refused: free_port(),
            tcp_tls: free_port(),
            tls_upstream: free_port(),
            upstream,
            upstream_tcp,
            refusing,
        };
        let path = folder.path().to_str().expect("UTF-8").to_owned();
        let config = bootstrap(&path, &ports, certificates);
        let file = folder.path().join("bootstrap.json");
        fs::write(&file, config.to_string()).expect("write");
        for (name, pem) in [
            ("client.pem", &certificates.client.0),
            ("client.key", &certificates.client.1),
        ] {
            fs::write(folder.path().join(name), pem).expect("write");
        }
        let log = fs::File::create(folder.path().join("log")).expect("a file");
        let child = program
            .command(&file)
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("a proxy");
        let running = Self {
            ports,
            folder,
            child,
            seen: Mutex::default(),
        };
        eventually(
            "a proxy is ready",
            Duration::from_secs(20),
            || match TcpStream::connect(("127.0.0.1", running.ports.admin)) {
                Ok(_) if running.get("/ready").status == 200 => Ok(()),
                _ => Err(fs::read_to_string(running.folder.path().join("log")).unwrap_or_default()),
            },
        );
        running
    }

    pub fn get(&self, page: &str) -> Page {
        self.ask("GET", page)
    }

    pub fn ask(&self, method: &str, page: &str) -> Page {
        let url = format!("http://127.0.0.1:{}{page}", self.ports.admin);
        let output = Command::new("curl")
            .args([
                "-s",
                "-g",
                "--max-time",
                "20",
                "-X",
                method,
                "-w",
                "\n%{http_code} %{content_type}",
                &url,
            ])
            .output()
            .expect("curl");
        let text = String::from_utf8_lossy(&output.stdout);
        let (body, last) = text.rsplit_once('\n').unwrap_or_default();
        let (status, kind) = last.split_once(' ').unwrap_or((last, ""));
        Page {
            status: status.parse().unwrap_or(0),
            kind: kind.to_owned(),
            body: body.to_owned(),
        }
    }

    /// Sends what the situation sends and waits until all forms of its line are written.
    pub fn play(&self, situation: &Situation) {
        let files: Vec<PathBuf> = FORMS
            .iter()
            .map(|form| {
                self.folder
                    .path()
                    .join(format!("{}.{form}", situation.listener))
            })
            .collect();
        let length = |file: &PathBuf| fs::metadata(file).map_or(0, |data| data.len() as usize);
        for file in &files {
            let length = length(file);
            self.seen
                .lock()
                .expect("no panic")
                .insert(file.clone(), length);
        }
        self.send(situation);
        eventually(
            &format!("{} is logged", situation.name),
            Duration::from_secs(10),
            || {
                let seen = self.seen.lock().expect("no panic");
                let has_line = |file: &&PathBuf| {
                    let text = fs::read_to_string(file).unwrap_or_default();
                    text.get(seen[*file]..)
                        .is_some_and(|new| new.ends_with('\n'))
                };
                if files.iter().filter(has_line).count() == files.len() {
                    Ok(())
                } else {
                    Err(fs::read_to_string(self.folder.path().join("log")).unwrap_or_default())
                }
            },
        );
    }

    fn send(&self, situation: &Situation) {
        let port = match situation.listener {
            "http" => self.ports.http,
            "https" => self.ports.https,
            "tcp" => self.ports.tcp,
            "tcprefused" => self.ports.tcp_refused,
            _ => self.ports.tcp_tls,
        };
        if matches!(situation.listener, "https" | "tcptls") {
            return self.send_by_tls(port, situation);
        }
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a listener");
        stream.write_all(situation.send.as_bytes()).expect("write");
        match situation.leave_after_ms {
            // An echo comes at once; where none comes, the request is on its way by now.
            Some(pause) => {
                let pause = Some(Duration::from_millis(pause));
                stream.set_read_timeout(pause).expect("a limit");
                let _ = stream.read(&mut [0; 16]);
            }
            None => {
                // Until the proxy closes; a reset is an end, too.
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
    }

    fn send_by_tls(&self, port: u16, situation: &Situation) {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let mut client = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-ign_eof",
                "-servername",
                "server.example.com",
            ])
            .args([
                "-connect",
                &format!("127.0.0.1:{port}"),
                "-cert",
                &file("client.pem"),
                "-key",
                &file("client.key"),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl");
        let mut input = client.stdin.take().expect("a pipe");
        input.write_all(situation.send.as_bytes()).expect("write");
        let mut output = client.stdout.take().expect("a pipe");
        let mut first = [0];
        output.read_exact(&mut first).expect("an answer");
        if situation.leave_after_ms.is_none() {
            let _ = output.read_to_end(&mut Vec::new());
        }
        drop(input);
        let _ = client.kill();
        let _ = client.wait();
    }

    /// The line that the last situation wrote to a file.
    pub fn last_line(&self, file: &str) -> String {
        let path = self.folder.path().join(file);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let new = text
            .get(self.seen.lock().expect("no panic")[&path]..)
            .unwrap_or_default();
        assert_eq!(new.lines().count(), 1, "{file}: {new}");
        new.trim_end_matches('\n').to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
