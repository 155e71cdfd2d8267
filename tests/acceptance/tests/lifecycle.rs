//! The life of a runtime: it ends within five seconds and leaves nothing, also when it was killed; edits of files take effect within a second.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use acceptance::{CLIENT, Mesh, User, base, users};
use nix::sys::signal::Signal;
use testkit::{echo, eventually};

const END: Duration = Duration::from_secs(5);
const ECHO: &str = "http://echo:8000/get";

/// Processes of this machine whose command line or mounts name the mesh's folder.
fn traces(mesh: &Mesh) -> BTreeSet<String> {
    let folder = mesh.state().display().to_string();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<u32>().is_err() || name == std::process::id().to_string() {
            continue;
        }
        for file in ["cmdline", "environ", "mountinfo"] {
            let text = fs::read(entry.path().join(file)).unwrap_or_default();
            if text
                .windows(folder.len())
                .any(|window| window == folder.as_bytes())
            {
                found.insert(format!(
                    "{name} {file} {}",
                    fs::read_to_string(entry.path().join("comm"))
                        .unwrap_or_default()
                        .trim()
                ));
            }
        }
    }
    found
}

fn start(user: User) -> Mesh {
    let mesh = Mesh::builder()
        .user(user)
        .file("mesh.yaml", &(base() + &echo("echo").with_service()))
        .start();
    mesh.wait_for_status(CLIENT, ECHO, &[], 200);
    assert!(!traces(&mesh).is_empty(), "a running mesh can be seen");
    mesh
}

#[track_caller]
fn nothing_is_left(mesh: &Mesh) {
    eventually("nothing is left", Duration::from_secs(2), || {
        let traces = traces(mesh);
        if traces.is_empty() {
            Ok(())
        } else {
            Err(traces)
        }
    });
    assert!(
        !mesh.state().join("api.sock").exists(),
        "the socket is left"
    );
    assert_eq!(
        fs::read_dir(mesh.state().join("run")).map_or(0, Iterator::count),
        0,
        "the run folder is not empty"
    );
}

#[test]
fn signals_end_everything_within_five_seconds() {
    for user in users() {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut mesh = start(user);
            mesh.stop_by(signal, END);
            nothing_is_left(&mesh);
        }
    }
}

#[test]
fn down_cleans_up_after_a_kill_and_a_new_start_works() {
    for user in users() {
        let mut mesh = start(user);
        let second = mesh.tanbark(&["up", &mesh.sources().display().to_string()]);
        assert!(
            second.code != 0 && second.stderr.contains("already"),
            "a second runtime on the same state is refused: {second:?}"
        );
        mesh.stop_by(Signal::SIGKILL, END);
        let down = mesh.tanbark(&["down"]);
        nothing_is_left(&mesh);
        assert!(
            down.stdout.len() + down.stderr.len() > 0,
            "down says what it did"
        );
        mesh.restart();
        mesh.wait_ready();
        mesh.wait_for_status(CLIENT, ECHO, &[], 200);
    }
}

fn answering(status: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: echo}}\nspec:\n  hosts: [echo]\n  http:\n  - directResponse: {{status: {status}}}\n"
    )
}

#[test]
fn an_edit_takes_effect_within_a_second_and_a_broken_file_changes_nothing() {
    let mesh = start(User::Own);
    let began = started(&mesh);
    let mut slowest = Duration::ZERO;
    for status in [418, 218, 419] {
        mesh.write("rule.yaml", &answering(status));
        let edited = Instant::now();
        mesh.wait_for_status(CLIENT, ECHO, &[], status);
        slowest = slowest.max(edited.elapsed());
    }
    // The requests themselves take a part of it: each starts a process in a pod.
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    mesh.write(
        "rule.yaml",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: echo\n",
    );
    eventually("the mistake is told", Duration::from_secs(5), || {
        let log = mesh.up_log();
        if log.contains("rule.yaml:") {
            Ok(())
        } else {
            Err(log)
        }
    });
    assert_eq!(
        mesh.request(CLIENT, ECHO, &[]).status,
        419,
        "the last good version stays"
    );
    mesh.remove("rule.yaml");
    mesh.wait_for_status(CLIENT, ECHO, &[], 200);
    assert_eq!(started(&mesh), began, "no pod was restarted");
}

/// Names and starts of all pods.
fn started(mesh: &Mesh) -> BTreeSet<String> {
    mesh.objects("pods")
        .iter()
        .map(|pod| {
            format!(
                "{} {} {}",
                pod["metadata"]["uid"],
                pod["status"]["startTime"],
                pod["status"]["containerStatuses"][0]["restartCount"]
            )
        })
        .collect()
}
