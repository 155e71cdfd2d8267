//! The runtime in real namespaces: each test starts one, asks it through its API, and stops it.
//!
//! This program is its own inner process and container (`machine-init`, `container-exec`), so it
//! has no test harness: its
//! `main` runs the tests below in order; words on the command line choose those whose names contain one. Where user
//! namespaces are refused nothing can be tested, which is printed. With root's rights the tests run
//! as root, else as the user.
#![allow(
    clippy::disallowed_methods,
    reason = "real processes and sockets: measured and waited for in real time"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use machine::client::{ExecOptions, ExecOutput, LogOptions};
use machine::store::kinds::{
    CONFIG_MAPS, DEPLOYMENTS, ENDPOINT_SLICES, EVENTS, JOBS, PODS, STATEFUL_SETS,
};
use machine::{Client, Error, Handle, Options};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("machine-init") => return machine::init::main(machine::hooks::Hooks::default()),
        Some("container-exec") => return machine::container::exec_main(),
        Some("beside-a-world") => return beside_a_world(),
        _ => {}
    }
    let words: Vec<&String> = arguments
        .iter()
        .filter(|word| !word.starts_with('-'))
        .collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    macro_rules! tests {
        ($($name:ident),* $(,)?) => {$(
            if words.is_empty() || words.iter().any(|word| stringify!($name).contains(word.as_str())) {
                let begun = Instant::now();
                match runtime.block_on(Machine::start(stringify!($name))) {
                    Ok(machine) => {
                        runtime.block_on(async { $name(&machine).await; machine.stop().await; });
                        println!("test {} ... ok ({:.1} s)", stringify!($name), begun.elapsed().as_secs_f32());
                    }
                    Err(error @ (Error::NamespacesRefused { .. } | Error::MissingProgram { .. })) => {
                        println!("skipped, this machine does not allow it: {error}");
                        return ExitCode::SUCCESS;
                    }
                    Err(error) => panic!("{}: {error}", stringify!($name)),
                }
            }
        )*};
    }
    tests!(
        pods_find_each_other_by_service_address_and_name,
        an_application_has_no_rights_and_cannot_see_the_state_folder,
        files_are_followed_and_a_broken_one_changes_nothing,
        files_behind_links_are_followed,
        edited_pods_are_replaced_and_end_whole,
        workloads_follow_their_specification,
        what_goes_wrong_is_reported_and_nothing_else_suffers,
        probes_hooks_and_secrets_are_obeyed,
        no_yaml_gets_the_rights_of_the_runtime,
        outside_names_and_ports_in_use_have_an_answer,
        captured_traffic_reaches_the_sidecar,
        connections_to_the_world_go_out_from_the_machine,
        both_firewalls_take_the_rules,
        nothing_is_left_after_a_stop,
    );
    ExitCode::SUCCESS
}

/// A running runtime with a folder of its own.
struct Machine {
    folder: tempfile::TempDir,
    handle: Handle,
}

impl Machine {
    async fn start(name: &str) -> machine::Result<Self> {
        Self::start_with(name, |_| {}).await
    }

    async fn start_with(name: &str, change: impl FnOnce(&mut Options)) -> machine::Result<Self> {
        println!("test {name}");
        let folder = tempfile::Builder::new()
            .prefix("tanbark-machine-")
            .tempdir()
            .expect("a folder");
        open_to_all(folder.path());
        let sources = folder.path().join("objects");
        fs::create_dir(&sources).expect("a folder");
        let proxy = folder.path().join("fake-proxy");
        fs::write(&proxy, FAKE_PROXY).expect("written");
        open_to_all(&proxy);
        let images = folder.path().join("images.yaml");
        fs::write(&images, "images:\n- {match: sh, command: [sleep, infinity]}\n- {match: web, command: [python3, -m, http.server, \"8000\", --directory, /www]}\n").expect("written");
        let mut options = Options::new(vec![sources], folder.path().join("state"));
        options.images = Some(images);
        options.proxy_program = proxy;
        options.search_path = "/usr/local/bin:/usr/bin:/bin".into();
        change(&mut options);
        let handle = machine::up(options).await?;
        handle.ready().await?;
        Ok(Self { folder, handle })
    }

    fn client(&self) -> Client {
        self.handle.client()
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join("objects").join(file), text).expect("written");
    }

    async fn stop(self) {
        self.handle.shutdown().await;
    }

    /// Output and code of a command in a pod.
    async fn run(&self, pod: &str, command: &str) -> (String, i32) {
        let options = ExecOptions {
            command: vec!["sh".into(), "-c".into(), command.into()],
            ..ExecOptions::default()
        };
        let mut session = self
            .client()
            .exec("default", pod, &options)
            .await
            .expect("exec");
        let mut text = Vec::new();
        while let Some(output) = session.next().await {
            match output {
                ExecOutput::Output(bytes) | ExecOutput::Errors(bytes) => {
                    text.extend_from_slice(&bytes)
                }
                ExecOutput::Ended(code) => {
                    return (String::from_utf8_lossy(&text).into_owned(), code);
                }
                ExecOutput::Failed(message) => panic!("{command}: {message}"),
            }
        }
        panic!("{command}: no end");
    }

    /// Waits until an object is as wanted.
    async fn until(
        &self,
        what: &str,
        kind: &'static machine::store::kinds::Kind,
        name: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let object = self
                .client()
                .read(kind, "default", name)
                .await
                .unwrap_or(Value::Null);
            if wanted(&object) {
                return object;
            }
            assert!(Instant::now() < end, "{what}: {object:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn ready(&self, pod: &str) -> Value {
        self.until("the pod is ready", &PODS, pod, ready).await
    }
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions");
}

fn ready(pod: &Value) -> bool {
    let conditions = machine::object::list(pod, "/status/conditions");
    conditions
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{terminationGracePeriodSeconds: 1, containers: [{{name: c, image: sh}}]}}\n"
    )
}

const WEB: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {index.html: hello}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{name: http, port: 18099, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: web:1.0
        ports: [{name: http, containerPort: 8000}]
        readinessProbe: {httpGet: {path: /, port: http}}
        volumeMounts: [{name: page, mountPath: /www}]
      volumes: [{name: page, configMap: {name: page}}]
";

async fn pods_find_each_other_by_service_address_and_name(machine: &Machine) {
    machine.write("web.yaml", WEB);
    machine.write("client.yaml", &pod("client"));
    machine
        .until(
            "the Deployment is available",
            &DEPLOYMENTS,
            "web",
            |object| object["status"]["readyReplicas"] == 2,
        )
        .await;
    machine.ready("client").await;
    let get = "curl -sS -m 5 http://web:18099/";
    let end = Instant::now() + PATIENCE;
    while machine.run("client", get).await.0 != "hello" {
        assert!(Instant::now() < end, "the Service never answered");
    }
    assert_eq!(
        machine
            .run(
                "client",
                "curl -sS -m 5 http://web.default.svc.cluster.local:18099/"
            )
            .await
            .0,
        "hello"
    );
    assert_eq!(
        machine
            .run("client", "curl -sS -m 5 http://alias:18099/")
            .await
            .0,
        "hello",
        "an ExternalName is followed to its addresses"
    );
    assert_eq!(
        machine.run("client", "curl -s -m 5 http://web:1/").await.1,
        7,
        "a port that no Service has refuses"
    );
    assert_eq!(
        machine
            .run("client", "curl -s -m 5 http://nothing/")
            .await
            .1,
        6,
        "a name that does not exist"
    );
    let summary = machine.handle.summary().await.expect("a summary");
    let address = summary["urls"][0]["address"]
        .as_str()
        .expect("published")
        .to_string();
    let mut stream = tokio::net::TcpStream::connect(&address)
        .await
        .expect("published on the machine");
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .await
        .expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.ends_with("hello"), "{answer}");
    let web = machine
        .client()
        .list(&PODS, Some("default"), "app=web")
        .await
        .expect("a list");
    let name = web["items"][0]["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_string();
    let own = machine.run(&name, "curl -sS -m 5 http://web:18099/ & curl -sS -m 5 http://web:18099/ & curl -sS -m 5 http://web:18099/; wait").await;
    assert_eq!(
        own,
        ("hellohellohello".into(), 0),
        "a pod reaches itself through its Service"
    );
}

async fn an_application_has_no_rights_and_cannot_see_the_state_folder(machine: &Machine) {
    machine.write("p.yaml", &pod("p"));
    machine.ready("p").await;
    let status = machine
        .run("p", "grep -E '^(Cap|NoNewPrivs)' /proc/self/status")
        .await
        .0;
    for line in status.lines() {
        let (name, value) = line.split_once(':').expect("a field");
        let wanted = if name == "NoNewPrivs" {
            "1"
        } else {
            "0000000000000000"
        };
        assert_eq!(value.trim(), wanted, "{name}");
    }
    let state = machine.handle.state().root().display().to_string();
    assert_eq!(
        machine
            .run("p", &format!("ls {state}/api.sock {state}/token-key.pem"))
            .await
            .1,
        2
    );
    assert_ne!(
        machine.run("p", "ip link set lo down").await.1,
        0,
        "it cannot change its network"
    );
    let before = fs::read_dir("/tmp").expect("a folder").count();
    machine.run("p", "touch /tmp/written-by-a-container").await;
    assert!(!Path::new("/tmp/written-by-a-container").exists());
    assert!(before > 0);
    assert_eq!(machine.run("p", "exit 7").await.1, 7);
}

async fn files_are_followed_and_a_broken_one_changes_nothing(machine: &Machine) {
    machine.write("m.yaml", &map("1"));
    machine
        .until("the object is there", &CONFIG_MAPS, "m", |object| {
            object["data"]["k"] == "1"
        })
        .await;
    let begun = Instant::now();
    machine.write("m.yaml", &map("2"));
    machine
        .until("the change arrived", &CONFIG_MAPS, "m", |object| {
            object["data"]["k"] == "2"
        })
        .await;
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    machine.write(
        "m.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m\ndata: {k: 3}\n",
    );
    let end = Instant::now() + PATIENCE;
    loop {
        let summary = machine.handle.summary().await.expect("a summary");
        let problems = summary["problems"].as_array().expect("a list");
        if problems.iter().any(|problem| {
            problem
                .as_str()
                .is_some_and(|text| text.contains("m.yaml:4:"))
        }) {
            break;
        }
        assert!(
            Instant::now() < end,
            "the broken file is not reported: {problems:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let object = machine
        .client()
        .read(&CONFIG_MAPS, "default", "m")
        .await
        .expect("still there");
    assert_eq!(object["data"]["k"], "2");
    fs::remove_file(machine.folder.path().join("objects/m.yaml")).expect("removed");
    machine
        .until(
            "the object went with its file",
            &CONFIG_MAPS,
            "m",
            Value::is_null,
        )
        .await;
}

fn map(value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {{k: \"{value}\"}}\n")
}

async fn files_behind_links_are_followed(machine: &Machine) {
    use std::os::unix::fs::symlink;
    let at = |name: &str| machine.folder.path().join(name);
    let soon = async |what: &str, value: &str| {
        let begun = Instant::now();
        machine
            .until(what, &CONFIG_MAPS, "m", |object| {
                object["data"]["k"] == value
            })
            .await;
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{what}: {:?}",
            begun.elapsed()
        );
    };
    fs::create_dir(at("elsewhere")).expect("a folder");
    fs::write(at("elsewhere/m"), map("1")).expect("written");
    symlink(at("elsewhere/m"), at("objects/m.yaml")).expect("a link");
    soon("a link is a file", "1").await;
    fs::write(at("elsewhere/new"), map("2")).expect("written");
    fs::rename(at("elsewhere/new"), at("elsewhere/m")).expect("renamed");
    soon("what a link leads to is replaced", "2").await;
    // As git-sync does: the folder is a link that is put on another folder.
    fs::remove_file(at("objects/m.yaml")).expect("removed");
    fs::create_dir(at("three")).expect("a folder");
    fs::write(at("three/m.yaml"), map("3")).expect("written");
    symlink(at("three"), at("objects/now")).expect("a link");
    soon("a linked folder is read", "3").await;
    fs::create_dir(at("four")).expect("a folder");
    fs::write(at("four/m.yaml"), map("4")).expect("written");
    symlink(at("four"), at("next")).expect("a link");
    fs::rename(at("next"), at("objects/now")).expect("renamed");
    soon("a link that leads elsewhere is followed", "4").await;
    // As `git checkout` may do: another folder in the place of the first.
    fs::remove_dir_all(at("objects")).expect("removed");
    fs::create_dir(at("objects")).expect("a folder");
    machine.write("m.yaml", &map("5"));
    soon("another folder in its place is read", "5").await;
    machine.write("m.yaml", &map("6"));
    soon("and watched", "6").await;
}

async fn edited_pods_are_replaced_and_end_whole(machine: &Machine) {
    let running = |name: &str, value: u32, label: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{a: {label}}}}}\n\
            spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: c, image: sh, env: [{{name: V, value: \"{value}\"}}]}}]}}\n"
        )
    };
    machine.write("p.yaml", &running("p", 1, "one"));
    let first = machine.ready("p").await;
    machine.write("p.yaml", &running("p", 1, "two"));
    let uid = |object: &Value| object["metadata"]["uid"].clone();
    let same = machine
        .until("its label changes", &PODS, "p", |object| {
            object["metadata"]["labels"]["a"] == "two"
        })
        .await;
    assert_eq!(uid(&same), uid(&first), "a label needs no other pod");
    machine.write("p.yaml", &running("p", 2, "two"));
    machine
        .until("it is replaced", &PODS, "p", |object| {
            uid(object) != uid(&first) && ready(object)
        })
        .await;
    assert_eq!(machine.run("p", "echo $V").await.0, "2\n");
    let client = machine.client();
    let change = json!({"spec": {"nodeName": "other", "hostname": "h"}});
    let refused = client.merge(&PODS, "default", "p", &change).await;
    let said = refused.expect_err("refused").to_string();
    assert!(said.contains("cannot be changed"), "{said}");

    let job = |word: &str| {
        format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: j}}\nspec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: sh, command: [echo, {word}]}}]}}}}}}\n"
        )
    };
    let complete = |object: &Value| object["status"]["conditions"][0]["type"] == "Complete";
    machine.write("j.yaml", &job("one"));
    let first = machine.until("complete", &JOBS, "j", complete).await;
    machine.write("j.yaml", &job("two"));
    machine
        .until("an edited Job runs again", &JOBS, "j", |object| {
            uid(object) != uid(&first) && complete(object)
        })
        .await;

    // Nobody else on this machine sleeps for so long.
    let command =
        "initContainers: [{name: i, image: sh, command: [sleep, \"987654\"]}], containers";
    machine.write("i.yaml", &pod("i").replace("containers", command));
    let sleeps = || {
        fs::read_dir("/proc")
            .expect("processes")
            .flatten()
            .any(|process| {
                fs::read(process.path().join("cmdline"))
                    .is_ok_and(|line| line.ends_with(b"sleep\x00987654\x00"))
            })
    };
    machine
        .until("its init container runs", &PODS, "i", |_| sleeps())
        .await;
    fs::remove_file(machine.folder.path().join("objects/i.yaml")).expect("removed");
    machine
        .until("the pod ended", &PODS, "i", Value::is_null)
        .await;
    assert!(!sleeps(), "its init container is left");
}

async fn workloads_follow_their_specification(machine: &Machine) {
    machine.write("web.yaml", WEB);
    machine
        .until("available", &DEPLOYMENTS, "web", |object| {
            object["status"]["readyReplicas"] == 2
        })
        .await;
    let client = machine.client();
    client
        .scale(&DEPLOYMENTS, "default", "web", 1)
        .await
        .expect("scaled");
    machine
        .until("scaled down", &DEPLOYMENTS, "web", |object| {
            object["status"]["replicas"] == 1
        })
        .await;
    let restart = json!({"spec": {"template": {"metadata": {"annotations": {"at": "now"}}}}});
    client
        .merge(&DEPLOYMENTS, "default", "web", &restart)
        .await
        .expect("restarted");
    machine
        .until("rolled", &DEPLOYMENTS, "web", |object| {
            object["status"]["updatedReplicas"] == 1
                && object["status"]["readyReplicas"] == 1
                && object["status"]["replicas"] == 1
        })
        .await;
    machine
        .until("one endpoint", &ENDPOINT_SLICES, "web-tanbark", |object| {
            object["endpoints"]
                .as_array()
                .is_some_and(|list| list.len() == 1)
        })
        .await;

    let set = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\nspec: {serviceName: db, replicas: 2, selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: sh}]}}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: None, selector: {app: db}, ports: [{name: tcp, port: 1}]}\n";
    machine.write("db.yaml", set);
    machine
        .until("both are ready", &STATEFUL_SETS, "db", |object| {
            object["status"]["readyReplicas"] == 2
        })
        .await;
    let address = machine.ready("db-1").await["status"]["podIP"]
        .as_str()
        .expect("an address")
        .to_string();
    let end = Instant::now() + PATIENCE;
    while !machine
        .run("db-0", "getent hosts db-1.db")
        .await
        .0
        .starts_with(&address)
    {
        assert!(Instant::now() < end, "db-1.db is not known");
    }

    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: sh, command: [sh, -c, \"echo done as $(NAME)\"], env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['job-name']\"}}}]}]}}}\n";
    machine.write("j.yaml", job);
    machine
        .until("the Job is complete", &JOBS, "j", |object| {
            object["status"]["conditions"][0]["type"] == "Complete"
        })
        .await;
    let pods = client
        .list(&PODS, Some("default"), "job-name=j")
        .await
        .expect("a list");
    let name = pods["items"][0]["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_string();
    assert_eq!(log(&client, &name).await, "done as j\n");
}

async fn log(client: &Client, pod: &str) -> String {
    use http_body_util::BodyExt;
    let body = client
        .log("default", pod, &LogOptions::default())
        .await
        .expect("a log");
    String::from_utf8_lossy(&body.collect().await.expect("read").to_bytes()).into_owned()
}

async fn what_goes_wrong_is_reported_and_nothing_else_suffers(machine: &Machine) {
    machine.write("unmapped.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: unmapped}\nspec: {containers: [{name: c, image: \"example.org/x/y:1\"}]}\n");
    machine.write("crashing.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: crashing}\nspec: {containers: [{name: c, image: sh, command: [sh, -c, exit 3]}]}\n");
    machine.write(
        "unknown.yaml",
        "apiVersion: example.org/v1\nkind: Thing\nmetadata: {name: t}\n",
    );
    machine.write("fine.yaml", &pod("fine"));
    machine.ready("fine").await;
    let waiting = |object: &Value| {
        object
            .pointer("/status/containerStatuses/0/state/waiting")
            .cloned()
            .unwrap_or_default()
    };
    let pod = machine
        .until("the image is reported", &PODS, "unmapped", |object| {
            waiting(object)["reason"] == "ErrImagePull"
        })
        .await;
    assert!(
        waiting(&pod)["message"]
            .as_str()
            .is_some_and(|text| text.contains("- match: \"example.org/x/y\"")),
        "{pod:#}"
    );
    let pod = machine
        .until("the crash is reported", &PODS, "crashing", |object| {
            waiting(object)["reason"] == "CrashLoopBackOff"
        })
        .await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"],
        3
    );
    let summary = machine.handle.summary().await.expect("a summary");
    assert!(
        summary["problems"]
            .to_string()
            .contains("unknown.yaml:2:1: kind Thing of example.org/v1 is not supported"),
        "{summary:#}"
    );
    let events = machine
        .client()
        .list(&EVENTS, Some("default"), "")
        .await
        .expect("events");
    assert!(events.to_string().contains("BackOff"));
}

const PROBED: &str = "
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {password: hunter2}
---
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  terminationGracePeriodSeconds: 5
  volumes:
  - {name: secret, secret: {secretName: s, defaultMode: 0440, items: [{key: password, path: deep/word}]}}
  - {name: shared, emptyDir: {}}
  containers:
  - name: c
    image: sh
    volumeMounts: [{name: secret, mountPath: /secret}, {name: shared, mountPath: /shared}]
    readinessProbe: {exec: {command: [test, -e, /shared/open]}, periodSeconds: 1}
    livenessProbe: {exec: {command: [sh, -c, 'test ! -e /shared/sick || { echo unwell; exit 4; }']}, periodSeconds: 1, failureThreshold: 1}
    lifecycle:
      postStart: {exec: {command: [sh, -c, 'rm -f /shared/sick; echo begun >> /shared/hooks']}}
      preStop: {exec: {command: [sh, -c, 'echo \"end of $(cat /secret/deep/word)\" >> /shared/hooks; cp /shared/hooks /shared/out']}}
  - {name: side, image: sh, command: [sh, -c, 'trap : TERM; while [ ! -e /shared/out ]; do sleep 0.05; done; cat /shared/out'], volumeMounts: [{name: shared, mountPath: /shared}]}
";

/// All events, as text.
async fn told(machine: &Machine) -> String {
    let events = machine.client().list(&EVENTS, Some("default"), "").await;
    events.expect("events").to_string()
}

async fn probes_hooks_and_secrets_are_obeyed(machine: &Machine) {
    machine.write("probed.yaml", PROBED);
    let container = |object: &Value, name: &str| {
        let list = machine::object::list(object, "/status/containerStatuses");
        list.iter()
            .find(|status| status["name"] == name)
            .cloned()
            .unwrap_or_default()
    };
    let begun = |object: &Value| container(object, "c")["state"].get("running").is_some();
    let object = machine
        .until("the container runs", &PODS, "probed", begun)
        .await;
    assert!(!ready(&object), "not before its probe succeeds");
    let end = Instant::now() + PATIENCE;
    while machine.run("probed", "cat /shared/hooks").await.0 != "begun\n" {
        assert!(Instant::now() < end, "postStart did not run");
    }
    let end = Instant::now() + PATIENCE;
    while !told(machine)
        .await
        .contains("Readiness probe failed: exit code 1")
    {
        assert!(Instant::now() < end, "nobody says why it was not ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        machine
            .run("probed", "cat /secret/deep/word; touch /shared/open")
            .await,
        ("hunter2".into(), 0)
    );
    machine.ready("probed").await;
    machine.run("probed", "touch /shared/sick").await;
    machine
        .until(
            "a failed liveness probe restarts it",
            &PODS,
            "probed",
            |object| container(object, "c")["restartCount"] == 1 && begun(object),
        )
        .await;
    let events = machine
        .client()
        .list(&EVENTS, Some("default"), "")
        .await
        .expect("events");
    assert!(
        events
            .to_string()
            .contains("Liveness probe failed: exit code 4: unwell"),
        "{events:#}"
    );
    let end = Instant::now() + PATIENCE;
    while machine.run("probed", "cat /shared/hooks").await.0 != "begun\nbegun\n" {
        assert!(Instant::now() < end, "postStart did not run again");
    }
    let log_file = machine
        .handle
        .state()
        .root()
        .join("logs/default/probed/side.log");
    fs::remove_file(machine.folder.path().join("objects/probed.yaml")).expect("removed");
    machine
        .until("the pod ended", &PODS, "probed", Value::is_null)
        .await;
    let text = fs::read_to_string(&log_file).expect("the log stays");
    assert!(
        text.contains("end of hunter2"),
        "preStop did not run: {text}"
    );
}

async fn no_yaml_gets_the_rights_of_the_runtime(machine: &Machine) {
    let state = machine.handle.state().root().display().to_string();
    machine.write(
        "bold.yaml",
        &format!("
apiVersion: v1
kind: Pod
metadata: {{name: bold}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: istio-proxy, image: tanbark/proxy, command: [sleep, infinity], securityContext: {{runAsUser: 1337, capabilities: {{add: [NET_ADMIN]}}}}}}
  - {{name: control, image: tanbark/control, command: [sleep, infinity], securityContext: {{runAsUser: 0}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: curious}}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{{name: v, hostPath: {{path: {state}/control}}}}]
  containers: [{{name: c, image: sh, volumeMounts: [{{name: v, mountPath: /v}}]}}]
"),
    );
    machine
        .until("the proxy's image runs", &PODS, "bold", |object| {
            machine::object::list(object, "/status/containerStatuses")
                .iter()
                .any(|status| {
                    status["name"] == "istio-proxy" && status["state"].get("running").is_some()
                })
        })
        .await;
    let rights = machine
        .run("bold", "grep CapEff /proc/self/status; id -u")
        .await
        .0;
    assert!(
        rights.starts_with("CapEff:\t0000000000000000\n"),
        "{rights}"
    );
    let user = rights.lines().last().unwrap_or_default();
    assert_ne!(user, "1337");
    let expected = [
        "container istio-proxy has the image of one of the runtime's own programs, but it has a command of its own",
        "leads to the runtime's own state folder",
    ];
    let end = Instant::now() + PATIENCE;
    loop {
        let events = machine
            .client()
            .list(&EVENTS, Some("default"), "")
            .await
            .expect("events")
            .to_string();
        if expected.iter().all(|text| events.contains(text)) {
            // As a plain user everything has one user id, so there is nothing to refuse.
            let root = user == "65534";
            assert_eq!(
                events.contains("runAsUser: 1337 is the proxy's"),
                root,
                "{events}"
            );
            break;
        }
        assert!(Instant::now() < end, "{events}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn outside_names_and_ports_in_use_have_an_answer(machine: &Machine) {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    machine.write("client.yaml", &pod("client"));
    machine.write("taken.yaml", &format!("apiVersion: v1\nkind: Service\nmetadata: {{name: taken}}\nspec: {{type: LoadBalancer, selector: {{app: x}}, ports: [{{port: {port}}}]}}\n"));
    machine.ready("client").await;
    let begun = Instant::now();
    let (text, code) = machine
        .run("client", "getent hosts nothing.example.org")
        .await;
    assert_ne!(code, 0, "{text}");
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "a machine without resolvers refuses at once, not after {:?}",
        begun.elapsed()
    );
    let published = |object: &Value| {
        machine::object::annotations(object)
            .get(machine::publish::ANNOTATION)
            .cloned()
    };
    let service = machine
        .until(
            "the Service is published",
            &machine::store::kinds::SERVICES,
            "taken",
            |object| published(object).is_some_and(|text| !text.is_empty()),
        )
        .await;
    let text = published(&service).expect("published");
    assert!(
        !text.ends_with(&format!(":{port}")),
        "{text} is somebody else's"
    );
    let events = machine
        .client()
        .list(&EVENTS, Some("default"), "")
        .await
        .expect("events")
        .to_string();
    assert!(
        events.contains(&format!(
            "port {port} of 127.0.0.1 for port {port} is not available"
        )),
        "{events}"
    );
    drop(taken);
}

/// Answers on the sidecar's ports with the port and the original destination of each connection.
const FAKE_PROXY: &str = r#"#!/usr/bin/python3
import socket, struct, threading
def serve(port):
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("0.0.0.0", port))
    server.listen(16)
    while True:
        connection, _ = server.accept()
        try:
            raw = connection.getsockopt(socket.SOL_IP, 80, 16)
            port_to, address = struct.unpack("!2xH4s8x", raw)
            text = "%d %s:%d" % (port, socket.inet_ntoa(address), port_to)
        except OSError:
            text = "%d direct" % port
        connection.recv(4096)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + text.encode())
        connection.close()
threads = [threading.Thread(target=serve, args=(port,)) for port in (15001, 15006, 15021)]
[thread.start() for thread in threads]
"#;

async fn captured_traffic_reaches_the_sidecar(machine: &Machine) {
    machine.write(
        "mesh.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio-ca-root-cert}\ndata: {root-cert.pem: none}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {sidecar.istio.io/inject: \"true\", app: a}, annotations: {traffic.sidecar.istio.io/excludeOutboundPorts: \"9999\"}}\n\
         spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: web, readinessProbe: {httpGet: {path: /, port: 8000}}, volumeMounts: [{name: w, mountPath: /www}]}], volumes: [{name: w, emptyDir: {}}]}\n",
    );
    machine.write("plain.yaml", &pod("plain"));
    let a = machine.ready("a").await;
    machine.ready("plain").await;
    assert_eq!(
        a["metadata"]["labels"]["security.istio.io/tlsMode"],
        "istio"
    );
    let address = a["status"]["podIP"].as_str().expect("an address");
    assert_eq!(
        machine
            .run("a", "curl -sS -m 5 http://10.96.200.200:8080/")
            .await
            .0,
        "15001 10.96.200.200:8080"
    );
    assert_eq!(
        machine
            .run("plain", &format!("curl -sS -m 5 http://{address}:8000/"))
            .await
            .0,
        format!("15006 {address}:8000")
    );
    assert_eq!(
        machine
            .run("plain", &format!("curl -sS -m 5 http://{address}:15021/"))
            .await
            .0,
        format!("15021 {address}:15021")
    );
    assert_eq!(
        machine
            .run("a", "curl -s -m 5 http://10.96.200.200:9999/")
            .await
            .1,
        7,
        "an excluded port goes past the sidecar"
    );
    assert!(
        machine
            .run("a", "curl -sS -m 5 http://127.0.0.1:8000/")
            .await
            .0
            .contains("Directory listing"),
        "loopback stays untouched"
    );
    let marked = "import socket; s=socket.socket(); s.setsockopt(1, 36, 1337)";
    assert_ne!(
        machine.run("a", &format!("python3 -c '{marked}'")).await.1,
        0,
        "an application cannot set the proxy's mark"
    );
}

/// This program again, in a network namespace of its own with something that stands for the world.
async fn connections_to_the_world_go_out_from_the_machine(_: &Machine) {
    let flags = if is_root() { "-n" } else { "-rn" };
    let output = std::process::Command::new("unshare")
        .arg(flags)
        .arg(std::env::current_exe().expect("this program"))
        .arg("beside-a-world")
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn is_root() -> bool {
    fs::metadata("/proc/self")
        .is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

/// 192.0.2.1 is an address of the machine's network: port 7000 returns everything when it has read
/// the end, 7001 resets, nobody listens at 7002.
fn beside_a_world() -> ExitCode {
    use std::io::{Read, Write};
    let script = "export PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && ip link add world type bridge && \
        ip addr add 192.0.2.1/24 dev world && ip link set world up";
    let made = std::process::Command::new("sh")
        .args(["-c", script])
        .status();
    assert!(made.expect("sh").success(), "no world");
    for port in [7_000, 7_001] {
        let listener = std::net::TcpListener::bind(("192.0.2.1", port)).expect("a listener");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut text = Vec::new();
                if port == 7_000 {
                    stream.read_to_end(&mut text).expect("read to the end");
                    stream.write_all(&text).expect("written");
                } else {
                    // What is not read becomes a reset.
                    stream.read_exact(&mut [0]).expect("read");
                }
            }
        });
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        for egress in [true, false] {
            let machine = Machine::start_with("beside a world", |options| options.egress = egress)
                .await
                .expect("a machine");
            ask_the_world(&machine, egress).await;
            machine.stop().await;
        }
    });
    ExitCode::SUCCESS
}

/// Sends a mebibyte and the end, prints how many bytes came back, or the error.
const ASK: &str = "
import socket, sys
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 15)
    s.sendall(b'x' * int(sys.argv[3]))
    s.shutdown(socket.SHUT_WR)
    n = 0
    while part := s.recv(65536): n += len(part)
    print(n)
except OSError as error:
    print(type(error).__name__, error.errno)
";

async fn ask_the_world(machine: &Machine, egress: bool) {
    machine.write("client.yaml", &pod("client"));
    machine.ready("client").await;
    let unreachable = "OSError 101";
    let reset = "ConnectionResetError 104";
    for (address, port, bytes, answer) in [
        ("192.0.2.1", 7_000, 1 << 20, "1048576"),
        ("192.0.2.1", 7_000, 0, "0"),
        // The other side resets, nobody listens, the machine knows no way.
        ("192.0.2.1", 7_001, 100_000, reset),
        ("192.0.2.1", 7_002, 1, reset),
        ("203.0.113.1", 7_000, 1, reset),
        // Not outside.
        ("169.254.169.254", 80, 1, unreachable),
        ("240.0.0.1", 80, 1, unreachable),
    ] {
        let wanted = if egress { answer } else { unreachable };
        let command = format!("timeout 20 python3 -c \"{ASK}\" {address} {port} {bytes}");
        let begun = Instant::now();
        let (said, _) = machine.run("client", &command).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{address}:{port}");
        assert_eq!(said.trim(), wanted, "{address}:{port}, egress: {egress}");
    }
}

async fn both_firewalls_take_the_rules(_: &Machine) {
    use inject::capture::Capture;
    use machine::rules::Firewall;
    use machine::rules::capture::{self, Exemption};
    use machine::rules::services::{Affinity, Protocol, Vip, rules};
    let annotations = [
        ("includeOutboundIPRanges", "10.0.0.0/8"),
        ("excludeInboundPorts", "22"),
        ("includeOutboundPorts", "80"),
        ("excludeInterfaces", "eth1"),
    ];
    let annotations = annotations
        .map(|(name, value)| {
            (
                format!("traffic.sidecar.istio.io/{name}"),
                value.to_string(),
            )
        })
        .into();
    let captures = [
        Capture::default(),
        Capture::parse(&annotations).expect("parses"),
    ];
    let endpoints = ["10.244.0.2:80", "10.244.0.3:80"]
        .map(|text| text.parse().expect("an endpoint"))
        .to_vec();
    let vip = |affinity| Vip {
        address: [10, 96, 0, 16].into(),
        port: 80,
        protocol: Protocol::Tcp,
        affinity,
        endpoints: endpoints.clone(),
    };
    let vips = [
        vip(Affinity::None),
        Vip {
            port: 81,
            ..vip(Affinity::Client)
        },
    ];
    // Owner 1337 exists only where users are told apart.
    let (exemptions, flags): (&[Exemption], &str) = if is_root() {
        (&[Exemption::OwnerAndMark, Exemption::Mark], "-n")
    } else {
        (&[Exemption::Mark], "-rn")
    };
    for (firewall, program) in [
        (Firewall::Nft, "nft -f -"),
        (Firewall::Iptables, "iptables-restore"),
    ] {
        let captured = captures.iter().flat_map(|capture| {
            exemptions
                .iter()
                .map(|exemption| capture::rules(capture, firewall, *exemption))
        });
        for text in
            captured.chain([None, Some(4_000)].map(|way_out| rules(&vips, way_out, firewall)))
        {
            let script = format!(
                "export PATH=$PATH:/usr/sbin:/sbin; command -v {} >/dev/null || {{ cat >/dev/null; exit 0; }}; {program}",
                program.split(' ').next().expect("a word")
            );
            let mut child = std::process::Command::new("unshare")
                .args([flags, "sh", "-c", &script])
                .stdin(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .expect("unshare");
            // A program that is not there reads nothing; what one says about an input cut short is
            // seen below.
            let mut input = child.stdin.take().expect("a pipe");
            let _ = std::io::Write::write_all(&mut input, text.as_bytes());
            drop(input);
            let output = child.wait_with_output().expect("ended");
            assert!(
                output.status.success(),
                "{program}: {}\n{text}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

async fn nothing_is_left_after_a_stop(machine: &Machine) {
    machine.write("p.yaml", &pod("p"));
    machine.ready("p").await;
    let state = machine.handle.state().root().to_path_buf();
    assert!(matches!(
        machine::up(Options::new(Vec::new(), state.clone())).await,
        Err(Error::AlreadyRunning { .. })
    ));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(
        !mounts.contains(state.to_str().expect("a path")),
        "no mount on the machine"
    );
    let begun = Instant::now();
    let other: PathBuf = machine.folder.path().join("other");
    let handle = machine::up(Options {
        search_path: "/usr/bin:/bin".into(),
        ..Options::new(Vec::new(), other.clone())
    })
    .await
    .expect("a second runtime");
    handle.ready().await.expect("up");
    let client = handle.client();
    client.create(&PODS, &json!({"metadata": {"name": "q"}, "spec": {"containers": [{"name": "c", "image": "none"}]}})).await.expect("created");
    handle.shutdown().await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert!(!other.join("api.sock").exists());
    assert_eq!(
        fs::read_dir(other.join("run")).expect("a folder").count(),
        0
    );
    assert!(matches!(
        machine::down(&other).await,
        Err(Error::NotRunning { .. })
    ));
}
