//! How people really use it: a folder with all that editors, other tools and habits leave there; another user's mesh; exit codes.

use std::{fs, os::unix::fs::symlink, time::Duration};

use acceptance::{Mesh, User, mesh_settings_and_namespace};
use testkit::{eventually, holds_for};

const SOON: Duration = Duration::from_secs(20);

fn config_map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n")
}

fn config_maps(mesh: &Mesh) -> Vec<String> {
    let name = |object: &serde_json::Value| {
        object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let mut names: Vec<String> = mesh
        .objects("configmaps")
        .iter()
        .filter(|object| object["metadata"]["namespace"] == "default")
        .map(name)
        .filter(|name| name != "istio-ca-root-cert")
        .collect();
    names.sort();
    names
}

fn expect(mesh: &Mesh, names: &[&str]) {
    eventually(&format!("the ConfigMaps are {names:?}"), SOON, || {
        let found = config_maps(mesh);
        if found == names { Ok(()) } else { Err(found) }
    });
}

#[test]
fn a_folder_may_hold_what_people_leave_there() {
    let mesh = Mesh::builder()
        .file("mesh.yaml", &mesh_settings_and_namespace())
        .file("kept.yaml", &config_map("kept"))
        .start();
    let at = |name: &str| mesh.sources().join(name);
    // Each is fine.
    fs::write(
        at("bom.yaml"),
        format!("\u{feff}{}", config_map("bom").replace('\n', "\r\n")),
    )
    .expect("written");
    fs::write(at("empty.yaml"), "").expect("written");
    fs::write(at("comment.yaml"), "# nothing yet\n").expect("written");
    fs::write(at("list.json"), r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"listed"}}]}"#).expect("written");
    fs::create_dir_all(at("a/b")).expect("folders");
    fs::write(at("a/b/deep.yaml"), config_map("deep")).expect("written");
    for name in [".kept.yaml.swp", "4913", "kept.yaml~", "README.md"] {
        fs::write(at(name), "}{").expect("written");
    }
    expect(&mesh, &["bom", "deep", "kept", "listed"]);
    // Each is reported by its name, and hurts no other.
    symlink(".", at("loop")).expect("a link");
    symlink("nowhere", at("dangling.yaml")).expect("a link");
    fs::write(at("latin.yaml"), b"a: b\nc: \xff\n").expect("written");
    fs::write(at("half.yaml"), "apiVersion: v1\nmetadata: {name: x\n").expect("written");
    fs::write(at("values.yaml"), "replicaCount: 1\n").expect("written");
    fs::write(at("twin.yaml"), config_map("kept")).expect("written");
    eventually("everything is reported once", SOON, || {
        let status = mesh.tanbark(&["status"]).stdout;
        let parts = [
            "loop: a link back to",
            "dangling.yaml: a link to a file that does not exist",
            "latin.yaml:2:4: not UTF-8",
            "half.yaml:2:11:",
            "values.yaml:1: not a Kubernetes object",
            "twin.yaml:1: ConfigMap default/kept is defined at",
        ];
        if parts.iter().all(|part| status.matches(part).count() == 1) {
            Ok(())
        } else {
            Err(status)
        }
    });
    expect(&mesh, &["bom", "deep", "kept", "listed"]);
    // Renamed is not deleted, deleted is.
    fs::rename(at("kept.yaml"), at("renamed.yaml")).expect("renamed");
    fs::remove_dir_all(at("a")).expect("removed");
    expect(&mesh, &["bom", "kept", "listed"]);
    // A folder that is away for a moment (another branch, another disk) takes nothing with it.
    let away = mesh.sources().with_file_name("away");
    fs::rename(mesh.sources(), &away).expect("moved");
    holds_for("nothing is deleted", Duration::from_secs(6), || {
        let found = config_maps(&mesh);
        if found == ["bom", "kept", "listed"] {
            Ok(())
        } else {
            Err(found)
        }
    });
    fs::rename(&away, mesh.sources()).expect("moved back");
}

#[test]
fn an_empty_folder_starts_a_mesh_that_waits_for_files() {
    let mesh = Mesh::builder().start();
    let log = mesh.up_log();
    assert!(log.contains("1/1 pods ready"), "{log}");
    assert!(log.contains("holds no file that ends in .yaml"), "{log}");
    mesh.write("first.yaml", &config_map("first"));
    expect(&mesh, &["first"]);
    mesh.remove("first.yaml");
    expect(&mesh, &[]);
}

#[test]
fn another_users_mesh_is_named_so() {
    if !acceptance::users().contains(&User::Nobody) {
        testkit::left_out(
            "another user's mesh is named so",
            "only root can be two users",
        );
        return;
    }
    // The mesh of whoever runs the tests, asked for by a user without rights.
    let mesh = Mesh::builder()
        .file("mesh.yaml", &mesh_settings_and_namespace())
        .start();
    let program = testkit::programs().join("tanbark");
    let folder = mesh.state();
    let parent = folder.parent().expect("a parent");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    fs::set_permissions(parent, mode).expect("opened");
    for command in ["status", "down"] {
        let output = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args([command, "--state"])
            .arg(&folder)
            .output()
            .expect("run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains("belongs to user"),
            "{command}: {said}"
        );
    }
    mesh.tanbark(&["status"]).ok();
}
