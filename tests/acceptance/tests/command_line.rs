//! What people of kubectl and istioctl type, and what they expect to come of it: words, columns, exit codes. One mesh, many commands.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use acceptance::{Mesh, base};
use testkit::{echo, eventually};

const SOON: Duration = Duration::from_secs(20);

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, labels: {made: by-hand}}\ndata: {a: \"1\"}\n";

fn mesh() -> Mesh {
    Mesh::builder()
        .file("mesh.yaml", &(base() + &echo("server").with_service()))
        .start()
}

/// A command with its standard input; what it said on both outputs, and its code.
fn run_with(mesh: &Mesh, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(testkit::programs().join("tanbark"))
        .arg("--state")
        .arg(mesh.state())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut stdin = child.stdin.take().expect("standard input");
    stdin.write_all(input.as_bytes()).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("ended");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The words of a table's first line.
fn titles(text: &str) -> Vec<&str> {
    let first = text.lines().next().unwrap_or_default();
    first
        .split("  ")
        .map(str::trim)
        .filter(|title| !title.is_empty())
        .collect()
}

#[test]
fn commands_answer_as_kubectls_and_istioctls() {
    let mesh = mesh();
    showing(&mesh);
    what_is_not_there(&mesh);
    applying_and_deleting(&mesh);
    running_commands_and_reading_logs(&mesh);
    asking_proxies(&mesh);
    other_programs(&mesh);
}

fn showing(mesh: &Mesh) {
    let get = |arguments: &[&str]| mesh.tanbark(&[&["get"], arguments].concat()).ok();
    for (arguments, expected) in [
        (
            &["pods"][..],
            &["NAME", "READY", "STATUS", "RESTARTS", "AGE"][..],
        ),
        (
            &["po", "-A", "-o", "wide"],
            &[
                "NAMESPACE",
                "NAME",
                "READY",
                "STATUS",
                "RESTARTS",
                "AGE",
                "IP",
                "NODE",
                "NOMINATED NODE",
                "READINESS GATES",
            ],
        ),
        (
            &["svc", "-o", "wide"],
            &[
                "NAME",
                "TYPE",
                "CLUSTER-IP",
                "EXTERNAL-IP",
                "PORT(S)",
                "AGE",
                "SELECTOR",
            ],
        ),
        (
            &["deployments", "-L", "app,version"],
            &[
                "NAME",
                "READY",
                "UP-TO-DATE",
                "AVAILABLE",
                "AGE",
                "APP",
                "VERSION",
            ],
        ),
        (&["sa"], &["NAME", "SECRETS", "AGE"]),
        (
            &["ns", "--show-labels"],
            &["NAME", "STATUS", "AGE", "LABELS"],
        ),
        (
            &["events", "-o", "wide"],
            &[
                "LAST SEEN",
                "TYPE",
                "REASON",
                "OBJECT",
                "SUBOBJECT",
                "SOURCE",
                "MESSAGE",
                "FIRST SEEN",
                "COUNT",
                "NAME",
            ],
        ),
        (
            &[
                "deploy",
                "-o",
                "custom-columns=WHO:.metadata.name,WHERE:.metadata.namespace",
            ],
            &["WHO", "WHERE"],
        ),
    ] {
        assert_eq!(titles(&get(arguments)), expected, "get {arguments:?}");
    }
    let all = get(&["all"]);
    for word in [
        "pod/server-v1-",
        "service/server",
        "deployment.apps/server-v1",
        "replicaset.apps/server-v1-",
    ] {
        assert!(all.contains(word), "get all has no {word}:\n{all}");
    }
    assert_eq!(
        get(&["deploy", "-o", "name"]),
        "deployment.apps/client-v1\ndeployment.apps/server-v1\n"
    );
    assert_eq!(
        get(&[
            "pods",
            "-l",
            "app=server",
            "-o",
            "jsonpath={.items[0].metadata.labels.app}"
        ]),
        "server"
    );
    assert_eq!(
        get(&[
            "svc",
            "server",
            "-o",
            "jsonpath={.spec.ports[?(@.port==8000)].targetPort}"
        ]),
        "8080"
    );
    assert_eq!(
        get(&[
            "deploy",
            "--sort-by=.metadata.name",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}"
        ]),
        "client-v1\nserver-v1\n"
    );
    let field = get(&[
        "pods",
        "--field-selector",
        "status.phase!=Running",
        "--no-headers",
    ]);
    assert_eq!(field, "");
    // The namespace may come first, as people type it with kubectl.
    let first = mesh
        .tanbark(&["-n", "istio-system", "get", "deploy", "-o", "name"])
        .ok();
    assert!(first.contains("deployment.apps/istiod"), "{first}");
    assert!(get(&["--raw", "/version"]).contains("gitVersion"));
}

fn what_is_not_there(mesh: &Mesh) {
    for (arguments, words) in [
        (
            &["get", "pod", "nothing"][..],
            "Error from server (NotFound): pods \"nothing\" not found",
        ),
        (
            &["get", "widgets"],
            "the server doesn't have a resource type \"widgets\"",
        ),
        (&["logs", "nothing"], "pods \"nothing\" not found"),
        (
            &["exec", "deploy/nothing", "--", "true"],
            "deployments.apps \"nothing\" not found",
        ),
        (
            &["delete", "cm", "nothing"],
            "Error from server (NotFound): configmaps \"nothing\" not found",
        ),
        (
            &["rollout", "status", "deploy/nothing"],
            "deployments.apps \"nothing\" not found",
        ),
        (
            &["proxy-config", "routes", "nothing"],
            "pods \"nothing\" not found",
        ),
        (
            &["apply", "-f", "/nothing.yaml"],
            "/nothing.yaml does not exist",
        ),
        (
            &["get", "pods", "-o", "go-template={{.x}}"],
            "go-template is not supported",
        ),
        (&["edit", "pods"], "`tanbark apply -f FILE`"),
        (
            &["-n", "x", "status"],
            "--namespace means nothing to this command",
        ),
        (
            &["logs", "deploy/server-v1", "-c", "nothing"],
            "container nothing is not valid for pod server-v1-",
        ),
    ] {
        let run = mesh.tanbark(arguments);
        assert_eq!(run.code, 1, "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains(words), "{arguments:?}: {}", run.stderr);
    }
    // What is there is shown beside what is not.
    let both = mesh.tanbark(&["get", "svc", "server", "nothing"]);
    assert_eq!(both.code, 1);
    assert!(
        both.stdout.contains("server") && both.stderr.contains("services \"nothing\" not found"),
        "{both:?}"
    );
    let ignored = mesh.tanbark(&["get", "pod", "nothing", "--ignore-not-found"]);
    assert_eq!(
        (
            ignored.code,
            ignored.stdout.as_str(),
            ignored.stderr.as_str()
        ),
        (0, "", "")
    );
    let none = mesh.tanbark(&["get", "pods", "-n", "nowhere"]);
    assert_eq!(
        (none.code, none.stderr.trim()),
        (0, "No resources found in nowhere namespace.")
    );
    let elsewhere = Command::new(testkit::programs().join("tanbark"))
        .args(["get", "pods", "--state"])
        .arg(mesh.sources().with_file_name("no-state"))
        .output()
        .expect("run");
    let words = String::from_utf8_lossy(&elsewhere.stderr).into_owned();
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(
        words.contains("no mesh is running at")
            && words.contains("tanbark up DIR")
            && words.contains(&format!("one is running at {}", mesh.state().display())),
        "{words}"
    );
}

fn applying_and_deleting(mesh: &Mesh) {
    let apply = |arguments: &[&str], text: &str| {
        let (code, out, errors) =
            run_with(mesh, &[&["apply", "-f", "-"], arguments].concat(), text);
        assert_eq!(code, 0, "{errors}");
        out
    };
    assert_eq!(
        apply(&["--dry-run=client"], CONFIG_MAP),
        "configmap/settings created (dry run)\n"
    );
    assert_eq!(
        apply(&["--dry-run=server"], CONFIG_MAP),
        "configmap/settings created (server dry run)\n"
    );
    assert_eq!(
        mesh.tanbark(&["get", "cm", "settings"]).code,
        1,
        "a dry run made it"
    );
    assert_eq!(apply(&[], CONFIG_MAP), "configmap/settings created\n");
    assert_eq!(apply(&[], CONFIG_MAP), "configmap/settings unchanged\n");
    let other = CONFIG_MAP.replace("\"1\"", "\"2\"");
    assert_eq!(
        apply(&["--dry-run=server"], &other),
        "configmap/settings configured (server dry run)\n"
    );
    let value = || {
        mesh.tanbark(&["get", "cm/settings", "-o", "jsonpath={.data.a}"])
            .ok()
    };
    assert_eq!(value(), "1");
    assert_eq!(apply(&["-o", "name"], &other), "configmap/settings\n");
    assert_eq!(value(), "2");
    let placed = CONFIG_MAP.replace("{name:", "{namespace: default, name:");
    let (code, _, errors) = run_with(mesh, &["apply", "-n", "istio-system", "-f", "-"], &placed);
    assert_eq!(code, 1);
    assert!(
        errors.contains("does not match the namespace \"istio-system\""),
        "{errors}"
    );
    let delete = |arguments: &[&str]| mesh.tanbark(&[&["delete"], arguments].concat()).ok();
    for dry in ["--dry-run=client", "--dry-run=server"] {
        assert!(
            delete(&["cm", "settings", dry])
                .starts_with("configmap \"settings\" deleted from default namespace (")
        );
        assert_eq!(value(), "2", "{dry} deleted it");
    }
    assert_eq!(
        delete(&["cm,secret", "-l", "made=by-hand"]),
        "configmap \"settings\" deleted from default namespace\n"
    );
    assert_eq!(delete(&["cm", "settings", "--ignore-not-found"]), "");
}

fn running_commands_and_reading_logs(mesh: &Mesh) {
    let exec = |arguments: &[&str]| mesh.exec(&["deploy/server-v1"], arguments);
    assert_eq!(exec(&["sh", "-c", "exit 7"]).code, 7);
    let killed = exec(&["sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.code, 137, "{killed:?}");
    let missing = exec(&["no-such-program"]);
    assert!(
        missing.code != 0 && missing.stderr.contains("no-such-program"),
        "{missing:?}"
    );
    let quiet = mesh.tanbark(&["exec", "-q", "deploy/server-v1", "--", "sh", "-c", "exit 3"]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (3, ""));
    let (code, out, _) = run_with(
        mesh,
        &["exec", "-i", "deploy/server-v1", "--", "cat"],
        "through\n",
    );
    assert_eq!((code, out.as_str()), (0, "through\n"));
    let logs = |arguments: &[&str]| mesh.tanbark(&[&["logs"], arguments].concat()).ok();
    let all = logs(&["deploy/server-v1", "-c", "istio-proxy"]);
    assert!(all.lines().count() > 1, "{all}");
    assert_eq!(
        logs(&["deploy/server-v1", "-c", "istio-proxy", "--tail=1"])
            .lines()
            .count(),
        1
    );
    assert_eq!(
        logs(&["deploy/server-v1", "-c", "istio-proxy", "--limit-bytes=5"]),
        &all[..5]
    );
    assert_eq!(
        logs(&[
            "deploy/server-v1",
            "-c",
            "istio-proxy",
            "--since-time=2100-01-01T00:00:00Z"
        ]),
        ""
    );
    let prefixed = logs(&["-l", "app=server", "--all-containers", "--prefix"]);
    assert!(prefixed.contains("/istio-proxy] "), "{prefixed}");
}

fn asking_proxies(mesh: &Mesh) {
    let ask = |arguments: &[&str]| mesh.tanbark(&[&["proxy-config"], arguments].concat()).ok();
    let server = "deploy/server-v1.default";
    assert_eq!(
        titles(&ask(&[
            "clusters",
            server,
            "--fqdn",
            "server.default",
            "--direction",
            "outbound"
        ])),
        [
            "SERVICE FQDN",
            "PORT",
            "SUBSET",
            "DIRECTION",
            "TYPE",
            "DESTINATION RULE"
        ]
    );
    let one = ask(&[
        "clusters",
        server,
        "--fqdn",
        "server.default",
        "--port",
        "8000",
        "-o",
        "json",
    ]);
    let one: serde_json::Value = serde_json::from_str(&one).expect("JSON");
    assert_eq!(one.as_array().map(Vec::len), Some(1), "{one}");
    assert!(one[0]["edsClusterConfig"].is_object(), "{one}");
    assert_eq!(
        ask(&["listeners", server, "-o", "short"]),
        ask(&["listeners", server])
    );
    assert!(ask(&["bootstrap", server, "-o", "short"]).contains("Istio Version:"));
    assert!(ask(&["log", server, "--level", "debug"]).contains("debug"));
    ask(&["log", server, "--reset"]);
    let status = mesh.tanbark(&["proxy-status"]).ok();
    assert_eq!(
        titles(&status),
        [
            "NAME", "CLUSTER", "CDS", "LDS", "EDS", "RDS", "ISTIOD", "VERSION"
        ]
    );
    assert!(mesh.tanbark(&["ps", server]).ok().contains("server-v1-"));
    assert_eq!(mesh.tanbark(&["ps", "-n", "nowhere"]).ok(), "");
}

fn other_programs(mesh: &Mesh) {
    // A reader that goes away ends the command quietly.
    let program = testkit::programs().join("tanbark");
    let script = format!(
        "{} get pods -A -o yaml --state {} | head -n 1",
        program.display(),
        mesh.state().display()
    );
    let piped = Command::new("sh")
        .args(["-c", &script])
        .output()
        .expect("run");
    assert_eq!(String::from_utf8_lossy(&piped.stdout), "apiVersion: v1\n");
    assert_eq!(String::from_utf8_lossy(&piped.stderr), "");
    for shell in ["bash", "zsh", "fish"] {
        let script = mesh.tanbark(&["completions", shell]).ok();
        assert!(script.contains("proxy-config"), "{shell}");
        if installed(shell).is_none() {
            testkit::left_out(
                &format!("{shell} loads its completions"),
                &format!("{shell} is not installed"),
            );
            continue;
        }
        let file = mesh
            .sources()
            .with_file_name(format!("completions.{shell}"));
        std::fs::write(&file, script).expect("written");
        let loaded = Command::new(shell)
            .arg("-n")
            .arg(&file)
            .output()
            .expect("run");
        assert!(
            loaded.status.success(),
            "{shell}: {}",
            String::from_utf8_lossy(&loaded.stderr)
        );
    }
}

/// The path of a program of this machine; `None` when it is not installed.
fn installed(program: &str) -> Option<std::path::PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// `tanbark proxy` on a free port; ends with this.
struct Forward {
    child: Child,
    port: u16,
}

impl Forward {
    fn start(mesh: &Mesh) -> Self {
        let mut child = Command::new(testkit::programs().join("tanbark"))
            .arg("--state")
            .arg(mesh.state())
            .args(["proxy", "--port", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut line = String::new();
        let out = child.stdout.take().expect("standard output");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let port = line
            .trim()
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        Self {
            child,
            port: port.expect("a port"),
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn kubectl_can_be_pointed_at_the_api() {
    let Some(program) = installed("kubectl") else {
        testkit::left_out(
            "kubectl can be pointed at the API",
            "kubectl is not installed",
        );
        return;
    };
    let mesh = mesh();
    let forward = Forward::start(&mesh);
    let home = mesh.sources().with_file_name("home");
    std::fs::create_dir(&home).expect("a folder");
    let file = home.join("objects.yaml");
    let config = home.join("kubeconfig").display().to_string();
    let port = forward.port.to_string();
    let (code, _, errors) = run_with(
        &mesh,
        &["kubeconfig", "--port", &port, "--write", &config],
        "",
    );
    assert_eq!(code, 0, "{errors}");
    let kubectl = |arguments: &[&str]| {
        let output = Command::new(&program)
            .env("HOME", &home)
            .env("KUBECONFIG", &config)
            .arg("--request-timeout=30s")
            .args(arguments)
            .output()
            .expect("run");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code().unwrap_or(-1),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let ok = |arguments: &[&str]| {
        let (code, out, errors) = kubectl(arguments);
        assert_eq!(code, 0, "kubectl {arguments:?}: {out}{errors}");
        out
    };
    assert_eq!(
        titles(&ok(&["get", "pods"])),
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    );
    assert!(titles(&ok(&["get", "pods", "-o", "wide"])).contains(&"IP"));
    assert!(ok(&["get", "all"]).contains("deployment.apps/server-v1"));
    assert!(
        ok(&["get", "deploy/server-v1", "-o", "jsonpath={.metadata.name}"]).contains("server-v1")
    );
    std::fs::write(&file, CONFIG_MAP).expect("written");
    let apply = || ok(&["apply", "-f", &file.to_string_lossy()]);
    assert_eq!(apply(), "configmap/settings created\n");
    assert_eq!(apply(), "configmap/settings unchanged\n");
    std::fs::write(&file, CONFIG_MAP.replace("\"1\"", "\"2\"")).expect("written");
    let (code, difference, _) = kubectl(&["diff", "-f", &file.to_string_lossy()]);
    assert!(
        code == 1 && difference.contains("+  a: \"2\""),
        "{code}: {difference}"
    );
    assert_eq!(apply(), "configmap/settings configured\n");
    ok(&["delete", "cm", "settings", "--dry-run=server"]);
    ok(&["get", "cm", "settings"]);
    ok(&["label", "cm", "settings", "x=y"]);
    ok(&["delete", "cm", "settings"]);
    // What the mesh does not know is not taken in silence.
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: odd}\nspec:\n  hosts: [server]\n  http: [{route: [{destination: {host: server, port: {number: 8000}}}], frobnicate: true}]\n";
    std::fs::write(&file, route).expect("written");
    let (_, out, errors) = kubectl(&["apply", "-f", &file.to_string_lossy()]);
    assert!(
        out.contains("virtualservice.networking.istio.io/odd created")
            && errors.matches("Warning:").count() == 1
            && errors.contains("frobnicate"),
        "{out}{errors}"
    );
    let (code, out, _) = kubectl(&[
        "exec",
        "deploy/server-v1",
        "--",
        "sh",
        "-c",
        "echo hi; exit 5",
    ]);
    assert_eq!((code, out.as_str()), (5, "hi\n"));
    assert!(!ok(&["logs", "deploy/server-v1", "-c", "istio-proxy", "--tail=1"]).is_empty());
    ok(&["scale", "deploy/server-v1", "--replicas=2"]);
    ok(&[
        "wait",
        "--for=condition=Available",
        "deploy/server-v1",
        "--timeout=30s",
    ]);
    ok(&["rollout", "restart", "deploy/server-v1"]);
    assert!(
        ok(&["rollout", "status", "deploy/server-v1", "--timeout=30s"])
            .contains("successfully rolled out")
    );
    assert!(ok(&["describe", "deploy", "server-v1"]).contains("Replicas:"));
    assert!(ok(&["auth", "can-i", "delete", "pods"]).contains("yes"));
    // What is not there is refused in words, at once.
    for (arguments, words) in [
        (
            &["port-forward", "deploy/server-v1", "0:8080"][..],
            "forwarding ports is not supported",
        ),
        (
            &["attach", "deploy/server-v1"],
            "attaching to a container is not supported",
        ),
        (&["top", "pods"], "Metrics API not available"),
        (&["get", "pod", "nothing"], "pods \"nothing\" not found"),
    ] {
        let (code, _, errors) = kubectl(arguments);
        assert!(
            code == 1 && errors.contains(words),
            "kubectl {arguments:?}: {errors}"
        );
    }
    eventually("the new pods are ready", SOON, || {
        let out = ok(&[
            "get",
            "deploy",
            "server-v1",
            "-o",
            "jsonpath={.status.readyReplicas}",
        ]);
        if out == "2" { Ok(()) } else { Err(out) }
    });
}
